/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --chroot, --user and --group: taken on when all that needs privileges is open.
 *
 * P1 names are looked up before the root changes, groups are set before the user, because
 *    afterwards neither is possible.
 * P2 what was dropped cannot be taken up again; that is tried, not believed.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qdp/sandbox-calls.h"

typedef struct Identity {
    bool has_user, has_group;
    uid_t uid;
    gid_t gid;
} Identity;

static bool number_of(const char *text, unsigned *ret)
{
    uint64_t number;

    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT32 - 1, &number, NULL)) {
        return false;
    }
    *ret = (unsigned)number;
    return true;
}

static bool look_up(const Walls *walls, Identity *ret, GError **errp)
{
    /* cppcheck-suppress getpwnamCalled ; only the main thread looks names up */
    struct passwd *user = walls->user ? getpwnam(walls->user) : NULL;
    /* cppcheck-suppress getgrnamCalled ; the same */
    struct group *group = walls->group ? getgrnam(walls->group) : NULL;

    ret->has_user = walls->user != NULL;
    ret->has_group = walls->group || user;
    if (user) {
        ret->uid = user->pw_uid;
        ret->gid = user->pw_gid;
    } else if (walls->user && !number_of(walls->user, &ret->uid)) {
        error_set(errp, "User \"%s\" doesn't exist", walls->user);
        return false;
    }
    if (group) {
        ret->gid = group->gr_gid;
    } else if (walls->group && !number_of(walls->group, &ret->gid)) {
        error_set(errp, "Group \"%s\" doesn't exist", walls->group);
        return false;
    }
    if (ret->has_user && !ret->has_group) { /* a number without an entry */
        ret->has_group = true;
        ret->gid = ret->uid;
    }
    return true;
}

static bool change_root(const char *path, GError **errp)
{
    if (chroot(path) < 0 || chdir("/") < 0) {
        error_set_errno(errp, errno, "Could not change the root to '%s'", path);
        return false;
    }
    return true;
}

static bool change_identity(const Identity *id, GError **errp)
{
    if (id->has_group && (setgroups(1, &id->gid) < 0 || setgid(id->gid) < 0)) {
        error_set_errno(errp, errno, "Could not change the group to %u", id->gid);
        return false;
    }
    if (id->has_user && setuid(id->uid) < 0) {
        error_set_errno(errp, errno, "Could not change the user to %u", id->uid);
        return false;
    }
    if (id->has_user && id->uid && (!setuid(0) || !seteuid(0))) { /* P2 */
        error_set(errp, "Privileges could be taken up again");
        return false;
    }
    return true;
}

bool walls_drop_privileges(const Walls *walls, GError **errp)
{
    Identity id = {0};

    return look_up(walls, &id, errp) &&
           (!walls->chroot || change_root(walls->chroot, errp)) &&
           change_identity(&id, errp);
}
