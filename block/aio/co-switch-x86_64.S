/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * void co_switch_asm(void **save, void *load)
 * System V AMD64 ABI: rbx, rbp, r12-r15, the x87 control word and MXCSR are preserved.
 * The latter two are never changed by this program and are left alone.
 */
    .text
    .globl co_switch_asm
    .type co_switch_asm, @function
    .p2align 4
co_switch_asm:
    .cfi_startproc
#ifdef __CET__
    endbr64
#endif
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rdx
    jmp *%rdx
    .cfi_endproc
    .size co_switch_asm, .-co_switch_asm

/* The first switch lands here: r12 = main, r13 = coroutine. */
    .globl co_start_asm
    .type co_start_asm, @function
    .p2align 4
co_start_asm:
    .cfi_startproc
    .cfi_undefined rip
#ifdef __CET__
    endbr64
#endif
    movq %r13, %rdi
    callq *%r12
    ud2
    .cfi_endproc
    .size co_start_asm, .-co_start_asm
    .section .note.GNU-stack,"",@progbits
