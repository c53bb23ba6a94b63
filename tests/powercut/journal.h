/*
 * The journal of what happens to the disk, in memory that all processes share; and what belongs to the disk.
 *
 * A change and its record happen under one lock. So whoever holds it sees a journal that is as the files are. A record
 * counts when it is complete: a killed process leaves no half of one.
 */
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

/* Python reads and writes all fields except the lock (recorder.py). */
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
