/*
 * Preloaded into a process, it counts its fsyncs and makes each take longer, as on a slower disk.
 *
 * FSYNC_COUNT_FILE names a file of 8 bytes at least, the count, to which all processes add that were started with it;
 * FSYNC_DELAY_MICROSECONDS is what each fsync or fdatasync takes longer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t *count;
static struct timespec delay;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("FSYNC_COUNT_FILE"), *microseconds = getenv("FSYNC_DELAY_MICROSECONDS");
    long long nanoseconds = microseconds ? atoll(microseconds) * 1000 : 0;
    delay.tv_sec = nanoseconds / 1000000000;
    delay.tv_nsec = nanoseconds % 1000000000;
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED)
        count = shared;
}

/* Counted when it is done, so that the count never runs ahead of the disk. */
static int finish(int result)
{
    if (delay.tv_sec || delay.tv_nsec)
        nanosleep(&delay, NULL);
    if (result == 0 && count)
        atomic_fetch_add(count, 1);
    return result;
}

int fsync(int file) { return finish(real_fsync(file)); }

int fdatasync(int file) { return finish(real_fdatasync(file)); }
