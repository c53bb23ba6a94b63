/*
 * Preloaded into processes, it records in order what they change below one directory, the disk, and what they sync.
 *
 * POWERCUT_DISK is that directory. POWERCUT_JOURNAL names the file of the records; `prepare` makes it. An fsync or
 * fdatasync of a file whose path matches the pattern POWERCUT_SKIP_FSYNC is left out, though it reports success.
 *
 * A change and its record happen under one lock, which all processes share. So whoever holds it sees a journal that is
 * as the files are. The end of a record is known before the next one begins: a killed process leaves no half of one.
 * Linux only, with 64-bit offsets.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE, SYNC_BEGINS, SYNC_ENDS, CREATE, MAKE_DIRECTORY, REMOVE, RENAME, MAP, UNSUPPORTED };

struct record {
    uint32_t kind, length; /* of the data that follows, padded to 8 bytes */
    uint64_t inode, at;
};

/* Python reads and writes the first four fields (recorder.py). */
struct journal {
    uint64_t size;
    _Atomic uint64_t end;
    uint32_t fsync_microseconds;
    uint32_t log_is_full; /* writes to SQLite's write-ahead log fail: no space is left */
    uint32_t overflowed;
    pthread_mutex_t lock;
};

static struct journal *journal;
static char disk[PATH_MAX];
static const char *skipped;

/* The interface for ctypes. */

int prepare(const char *name, uint64_t size)
{
    int file = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || syscall(SYS_ftruncate, file, size))
        return -1;
    struct journal *made = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (made == MAP_FAILED)
        return -1;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&made->lock, &attributes);
    made->size = size;
    made->end = sizeof *made;
    journal = made;
    return sizeof *made;
}

void end(void) { munmap(journal, journal->size); }

void hold(void)
{
    if (pthread_mutex_lock(&journal->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&journal->lock);
}

void let_go(void) { pthread_mutex_unlock(&journal->lock); }

__attribute__((constructor)) static void begin(void)
{
    const char *root = getenv("POWERCUT_DISK"), *name = getenv("POWERCUT_JOURNAL");
    if (!root || !name)
        return;
    struct stat status;
    int file = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
    if (file < 0 || fstat(file, &status) || strlen(root) >= sizeof disk)
        abort(); /* what is not recorded would prove nothing */
    strcpy(disk, root);
    skipped = getenv("POWERCUT_SKIP_FSYNC");
    journal = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (journal == MAP_FAILED)
        abort();
}

/* Records. The caller holds the lock. */

static uint64_t note(enum kind kind, uint64_t inode, uint64_t at, const void *data, size_t length)
{
    uint64_t where = journal->end, end = where + sizeof(struct record) + (length + 7) / 8 * 8;
    if (end > journal->size) {
        journal->overflowed = 1;
        return where;
    }
    struct record *record = (struct record *)((char *)journal + where);
    *record = (struct record){kind, length, inode, at};
    memcpy(record + 1, data, length);
    atomic_store(&journal->end, end);
    return where;
}

static void note_pieces(uint64_t inode, uint64_t at, const struct iovec *pieces, int count, ssize_t written)
{
    for (int i = 0; i < count && written > 0; i++) {
        size_t length = pieces[i].iov_len < (size_t)written ? pieces[i].iov_len : (size_t)written;
        note(WRITE, inode, at, pieces[i].iov_base, length);
        at += length;
        written -= length;
    }
}

/* Tell whether a path is on the disk. */
static int is_below(const char *path)
{
    size_t length = strlen(disk);
    return journal && length && !strncmp(path, disk, length) && (path[length] == '/' || !path[length]);
}

/* Tell whether an open file is on the disk, with its path and inode. */
static int is_recorded(int file, char *path, uint64_t *inode)
{
    char link[32];
    struct stat status;
    int before = errno, found = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = journal ? readlink(link, path, PATH_MAX - 1) : -1;
    if (length > 0) {
        path[length] = 0;
        found = is_below(path) && !fstat(file, &status);
        *inode = found ? status.st_ino : 0;
    }
    errno = before;
    return found;
}

struct place {
    uint64_t directory; /* its inode */
    char name[NAME_MAX + 1];
};

/* Tell whether a path's last part is an entry of a directory on the disk, and of which. */
static int find(int directory, const char *path, struct place *place)
{
    char parent[PATH_MAX] = ".", found[PATH_MAX];
    int before = errno;
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    size_t name = length; /* where it begins */
    while (name > 0 && path[name - 1] != '/')
        name--;
    if (!journal || name >= sizeof parent || length - name > NAME_MAX)
        return 0;
    snprintf(place->name, sizeof place->name, "%.*s", (int)(length - name), path + name);
    if (name > 0)
        snprintf(parent, sizeof parent, "%.*s", (int)name, path);
    int file = syscall(SYS_openat, directory, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    int is = file >= 0 && is_recorded(file, found, &place->directory);
    if (file >= 0)
        close(file);
    errno = before;
    return is;
}

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

int creat64(const char *path, mode_t mode) { return creat(path, mode); }

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

ssize_t pwritev64v2(int file, const struct iovec *pieces, int count, off_t at, int flags)
{
    return pwritev2(file, pieces, count, at, flags);
}

ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t at)
{
    return pwritev2(file, pieces, count, at, 0);
}

ssize_t pwritev64(int file, const struct iovec *pieces, int count, off_t at) { return pwritev(file, pieces, count, at); }

ssize_t pwrite(int file, const void *data, size_t length, off_t at)
{
    return pwritev(file, &(struct iovec){(void *)data, length}, 1, at);
}

ssize_t pwrite64(int file, const void *data, size_t length, off_t at) { return pwrite(file, data, length, at); }

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

int ftruncate64(int file, off_t size) { return ftruncate(file, size); }

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

void *mmap64(void *address, size_t length, int protection, int flags, int file, off_t at)
{
    return mmap(address, length, protection, flags, file, at);
}

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

int posix_fallocate64(int file, off_t at, off_t length) { return posix_fallocate(file, at, length); }

int fallocate(int file, int mode, off_t at, off_t length)
{
    refuse(file, "fallocate");
    return syscall(SYS_fallocate, file, mode, at, length);
}

int fallocate64(int file, int mode, off_t at, off_t length) { return fallocate(file, mode, at, length); }

ssize_t sendfile(int file, int from, off_t *at, size_t length)
{
    refuse(file, "sendfile");
    return syscall(SYS_sendfile, file, from, at, length);
}

ssize_t sendfile64(int file, int from, off_t *at, size_t length) { return sendfile(file, from, at, length); }

ssize_t copy_file_range(int from, off_t *read_at, int file, off_t *at, size_t length, unsigned flags)
{
    refuse(file, "copy_file_range");
    return syscall(SYS_copy_file_range, from, read_at, file, at, length, flags);
}
