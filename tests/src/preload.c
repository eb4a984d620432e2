/* What a node is made to believe, laid under it by LD_PRELOAD: the time of day, and how long its disk takes.
 *
 * The harness writes two numbers into a page that it shares with one process; they count from that moment on.
 * Monotonic clocks are not touched: a jump of the time of day does not move them on a real machine either. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct page {
    volatile int64_t clock_ms; /* added to the time of day */
    volatile int64_t sync_us;  /* how much longer every fsync takes, and every write that waits for the disk */
};

static struct page *page;
static int (*next_gettime)(clockid_t, struct timespec *);
static int (*next_fsync)(int);
static int (*next_fdatasync)(int);
static ssize_t (*next_pwrite64)(int, const void *, size_t, off64_t);

__attribute__((constructor)) static void open_page(void) {
    next_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    next_fsync = dlsym(RTLD_NEXT, "fsync");
    next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    next_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
    const char *path = getenv("AMPHORA_FAULT_PAGE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *at = mmap(NULL, sizeof(struct page), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED)
        page = at;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    /* Others' constructors may ask for the time before ours has run. */
    int result = next_gettime ? next_gettime(clock, t) : (int)syscall(SYS_clock_gettime, clock, t);
    if (result == 0 && page && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ms = page->clock_ms;
        t->tv_sec += ms / 1000;
        t->tv_nsec += ms % 1000 * 1000000;
        if (t->tv_nsec < 0) {
            t->tv_nsec += 1000000000;
            t->tv_sec -= 1;
        } else if (t->tv_nsec >= 1000000000) {
            t->tv_nsec -= 1000000000;
            t->tv_sec += 1;
        }
    }
    return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) == 0) {
        t->tv_sec = now.tv_sec;
        t->tv_usec = now.tv_nsec / 1000;
    }
    return 0;
}

time_t time(time_t *out) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

static void dawdle(void) {
    int64_t us = page ? page->sync_us : 0;
    if (us > 0) {
        struct timespec pause = {us / 1000000, us % 1000000 * 1000};
        nanosleep(&pause, NULL);
    }
}

int fsync(int file) {
    dawdle();
    return next_fsync ? next_fsync(file) : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    dawdle();
    return next_fdatasync ? next_fdatasync(file) : (int)syscall(SYS_fdatasync, file);
}

/* The logs are opened so that every write of theirs waits for the disk. */
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    if (page && page->sync_us > 0 && (fcntl(file, F_GETFL) & O_DSYNC))
        dawdle();
    return next_pwrite64 ? next_pwrite64(file, bytes, length, at)
                         : (ssize_t)syscall(SYS_pwrite64, file, bytes, length, at);
}
