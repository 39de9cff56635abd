/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * void co_switch_asm(void **save, void *load)
 * AAPCS64: x19-x30 and the low halves of v8-v15 are preserved.
 */
    .text
    .globl co_switch_asm
    .type co_switch_asm, %function
    .p2align 4
co_switch_asm:
    .cfi_startproc
    hint #34 /* bti c */
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .cfi_endproc
    .size co_switch_asm, .-co_switch_asm

/* The first switch lands here: x19 = main, x20 = coroutine. */
    .globl co_start_asm
    .type co_start_asm, %function
    .p2align 4
co_start_asm:
    .cfi_startproc
    .cfi_undefined x30
    hint #36 /* bti j */
    mov x0, x20
    blr x19
    brk #1
    .cfi_endproc
    .size co_start_asm, .-co_start_asm
    .section .note.GNU-stack,"",%progbits
