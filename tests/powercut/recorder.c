/*
 * Preloaded into processes, it records in order what they change below one directory, the disk, and what they sync.
 *
 * POWERCUT_DISK is that directory. POWERCUT_JOURNAL names the file of the records; `prepare` makes it. An fsync or
 * fdatasync of a file whose path matches the pattern POWERCUT_SKIP_FSYNC is left out, though it reports success.
 * Linux only, with 64-bit offsets.
 */
#define _GNU_SOURCE
#include "journal.h"

/* Files: made, written, made shorter. */

static int open_recorded(int directory, const char *path, int flags, mode_t mode)
{
    struct place place;
    struct stat status;
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !find(directory, path, &place))
        return syscall(SYS_openat, directory, path, flags, mode);
    hold();
    int is_new = (flags & O_CREAT) != 0;
    int file = flags & O_CREAT && !(flags & O_EXCL) ? syscall(SYS_openat, directory, path, flags & ~O_CREAT, mode) : -1;
    is_new = is_new && file < 0;
    if (file < 0)
        file = syscall(SYS_openat, directory, path, flags, mode);
    if (file >= 0 && !fstat(file, &status)) {
        if (is_new)
            note(CREATE, status.st_ino, place.directory, place.name, strlen(place.name));
        else if (flags & O_TRUNC)
            note(TRUNCATE, status.st_ino, 0, "", 0);
    }
    let_go();
    return file;
}

#define OPEN(name, parameters, directory, last)                                                                        \
    int name parameters                                                                                                \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, last);                                                                                          \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return open_recorded(directory, path, flags, mode);                                                            \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, flags)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, flags)
OPEN(openat, (int directory, const char *path, int flags, ...), directory, flags)
OPEN(openat64, (int directory, const char *path, int flags, ...), directory, flags)

int creat(const char *path, mode_t mode) { return open_recorded(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int creat64(const char *path, mode_t mode) __attribute__((alias("creat")));

ssize_t writev(int file, const struct iovec *pieces, int count)
{
    char path[PATH_MAX];
    uint64_t inode;
    if (!is_recorded(file, path, &inode))
        return syscall(SYS_writev, file, pieces, count);
    hold();
    ssize_t written = syscall(SYS_writev, file, pieces, count);
    if (written > 0) /* only now is known where: at the end, if the file was opened for appending */
        note_pieces(inode, lseek(file, 0, SEEK_CUR) - written, pieces, count, written);
    let_go();
    return written;
}

ssize_t write(int file, const void *data, size_t length)
{
    char path[PATH_MAX];
    uint64_t inode;
    if (!is_recorded(file, path, &inode))
        return syscall(SYS_write, file, data, length);
    return writev(file, &(struct iovec){(void *)data, length}, 1);
}

ssize_t pwritev2(int file, const struct iovec *pieces, int count, off_t at, int flags)
{
    char path[PATH_MAX];
    uint64_t inode;
    if (!is_recorded(file, path, &inode))
        return syscall(SYS_pwritev2, file, pieces, count, at, 0, flags);
    size_t length = strlen(path);
    if (journal->log_is_full && length > 4 && !strcmp(path + length - 4, "-wal")) {
        errno = ENOSPC;
        return -1;
    }
    hold();
    ssize_t written = syscall(SYS_pwritev2, file, pieces, count, at, 0, flags);
    note_pieces(inode, at, pieces, count, written);
    let_go();
    return written;
}

ssize_t pwritev64v2(int file, const struct iovec *pieces, int count, off_t at, int flags) __attribute__((alias("pwritev2")));

ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t at)
{
    return pwritev2(file, pieces, count, at, 0);
}

ssize_t pwritev64(int file, const struct iovec *pieces, int count, off_t at) __attribute__((alias("pwritev")));

ssize_t pwrite(int file, const void *data, size_t length, off_t at)
{
    return pwritev(file, &(struct iovec){(void *)data, length}, 1, at);
}

ssize_t pwrite64(int file, const void *data, size_t length, off_t at) __attribute__((alias("pwrite")));

int ftruncate(int file, off_t size)
{
    char path[PATH_MAX];
    uint64_t inode;
    if (!is_recorded(file, path, &inode))
        return syscall(SYS_ftruncate, file, size);
    hold();
    int result = syscall(SYS_ftruncate, file, size);
    if (result == 0)
        note(TRUNCATE, inode, size, "", 0);
    let_go();
    return result;
}

int ftruncate64(int file, off_t size) __attribute__((alias("ftruncate")));

/* What is written to a map is not recorded: the harness allows that for SQLite's -shm alone. */
void *mmap(void *address, size_t length, int protection, int flags, int file, off_t at)
{
    char path[PATH_MAX];
    uint64_t inode;
    void *map = (void *)syscall(SYS_mmap, address, length, protection, flags, file, at);
    if (map != MAP_FAILED && file >= 0 && protection & PROT_WRITE && flags & MAP_SHARED
        && is_recorded(file, path, &inode)) {
        hold();
        note(MAP, inode, 0, path, strlen(path));
        let_go();
    }
    return map;
}

void *mmap64(void *address, size_t length, int protection, int flags, int file, off_t at) __attribute__((alias("mmap")));

/* Directories. */

int mkdirat(int directory, const char *path, mode_t mode)
{
    struct place place;
    struct stat status;
    if (!find(directory, path, &place))
        return syscall(SYS_mkdirat, directory, path, mode);
    hold();
    int result = syscall(SYS_mkdirat, directory, path, mode);
    if (result == 0 && !fstatat(directory, path, &status, 0))
        note(MAKE_DIRECTORY, status.st_ino, place.directory, place.name, strlen(place.name));
    let_go();
    return result;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int directory, const char *path, int flags)
{
    struct place place;
    if (!find(directory, path, &place))
        return syscall(SYS_unlinkat, directory, path, flags);
    hold();
    int result = syscall(SYS_unlinkat, directory, path, flags);
    if (result == 0)
        note(REMOVE, 0, place.directory, place.name, strlen(place.name));
    let_go();
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    struct place left, entered;
    char names[2 * NAME_MAX + 2];
    int has_left = find(from, old, &left), has_entered = find(to, new, &entered);
    if (!has_left && !has_entered)
        return syscall(SYS_renameat2, from, old, to, new, flags);
    hold();
    int result = syscall(SYS_renameat2, from, old, to, new, flags);
    int length = snprintf(names, sizeof names, "%s/%s", left.name, entered.name);
    if (result == 0 && !flags && has_left && has_entered && left.directory == entered.directory)
        note(RENAME, 0, left.directory, names, length);
    else if (result == 0)
        note(UNSUPPORTED, 0, 0, "rename", 6);
    let_go();
    return result;
}

int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }

int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

/* Syncs. They cover what was changed before they began. */

static int sync_recorded(int file, long call)
{
    char path[PATH_MAX];
    uint64_t inode;
    if (!is_recorded(file, path, &inode))
        return syscall(call, file);
    if (skipped && *skipped && !fnmatch(skipped, path, 0))
        return 0;
    hold();
    uint64_t began = note(SYNC_BEGINS, inode, 0, "", 0);
    let_go();
    int result = syscall(call, file);
    nanosleep(&(struct timespec){0, journal->fsync_microseconds * 1000L}, NULL);
    hold();
    if (result == 0)
        note(SYNC_ENDS, inode, began, "", 0);
    let_go();
    return result;
}

int fsync(int file) { return sync_recorded(file, SYS_fsync); }

int fdatasync(int file) { return sync_recorded(file, SYS_fdatasync); }

/* What nothing of ours uses. Where that changes, the harness says so. */

static int refuse(int file, const char *name)
{
    char path[PATH_MAX];
    uint64_t inode;
    if (is_recorded(file, path, &inode)) {
        hold();
        note(UNSUPPORTED, inode, 0, name, strlen(name));
        let_go();
    }
    return 0;
}

int posix_fallocate(int file, off_t at, off_t length)
{
    refuse(file, "posix_fallocate");
    return syscall(SYS_fallocate, file, 0, at, length) ? errno : 0;
}

int posix_fallocate64(int file, off_t at, off_t length) __attribute__((alias("posix_fallocate")));

int fallocate(int file, int mode, off_t at, off_t length)
{
    refuse(file, "fallocate");
    return syscall(SYS_fallocate, file, mode, at, length);
}

int fallocate64(int file, int mode, off_t at, off_t length) __attribute__((alias("fallocate")));

ssize_t sendfile(int file, int from, off_t *at, size_t length)
{
    refuse(file, "sendfile");
    return syscall(SYS_sendfile, file, from, at, length);
}

ssize_t sendfile64(int file, int from, off_t *at, size_t length) __attribute__((alias("sendfile")));

ssize_t copy_file_range(int from, off_t *read_at, int file, off_t *at, size_t length, unsigned flags)
{
    refuse(file, "copy_file_range");
    return syscall(SYS_copy_file_range, from, read_at, file, at, length, flags);
}
