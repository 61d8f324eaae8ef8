/* The clock of the processes that scripts/instructions measures, preloaded into them. Time stands still while they work: the load
 * moves it on when all of them wait. So what they do at which time depends neither on the machine's speed nor on its load. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

enum { WAITS = 64, POLL_MS = 1 };
static const int64_t S = 1000000000, MS = 1000000, NEVER = INT64_MAX;

/* Shared with instructions.py, which writes the first three. Times are nanoseconds since 1970. */
static struct {
    _Atomic int64_t now;
    _Atomic int64_t is_counting; /* whether instructions are to be counted */
    _Atomic int64_t left;        /* waits that have ended */
    _Atomic int64_t switched;    /* switches of counting, of all processes */
    _Atomic int64_t until[WAITS]; /* of the waits under way; 0: a free place */
} *page;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("RELAY700_CLOCK"), O_RDWR | O_CLOEXEC);
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || page == MAP_FAILED) abort();
    close(file);
}

static int64_t nanoseconds(const struct timespec *time) { return time->tv_sec * S + time->tv_nsec; }

static struct timespec soon(clockid_t clock) {
    struct timespec time;
    syscall(SYS_clock_gettime, clock, &time);
    int64_t at = nanoseconds(&time) + POLL_MS * MS;
    return (struct timespec){at / S, at % S};
}

static int counts;             /* whether this process counts */
static __thread int was_counting; /* when the wait of this thread began */

/* A wait is not counted: it looks for the time once a millisecond, however long that stands still. */
static _Atomic int64_t *enter(int64_t until) {
    was_counting = counts;
    CALLGRIND_TOGGLE_COLLECT;
    for (int i = 0;; i = (i + 1) % WAITS) {
        int64_t none = 0;
        if (atomic_compare_exchange_strong(&page->until[i], &none, until)) return &page->until[i];
    }
}

static void leave(_Atomic int64_t *place) {
    *place = 0;
    page->left++;
    if (was_counting == counts) CALLGRIND_TOGGLE_COLLECT; /* else the switch has set it on */
}

static void switch_counting(void) {
    if (counts == page->is_counting) return;
    counts = page->is_counting;
    if (counts) {
        CALLGRIND_START_INSTRUMENTATION;
    } else {
        CALLGRIND_DUMP_STATS;
        CALLGRIND_STOP_INSTRUMENTATION;
    }
    page->switched++;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID) return syscall(SYS_clock_gettime, clock, time);
    *time = (struct timespec){page->now / S, page->now % S};
    return 0;
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout_ms, const sigset_t *mask) {
    int64_t until = timeout_ms < 0 ? NEVER : page->now + timeout_ms * MS;
    _Atomic int64_t *place = enter(until);
    int found;
    do {
        switch_counting();
        found = syscall(SYS_epoll_pwait, epoll, events, most, page->now < until ? POLL_MS : 0, mask, 8);
    } while (found == 0 && page->now < until);
    leave(place);
    return found;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms) {
    return epoll_pwait(epoll, events, most, timeout_ms, NULL);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest) {
    int64_t until = nanoseconds(time) + (flags & TIMER_ABSTIME ? 0 : page->now);
    _Atomic int64_t *place = enter(until);
    while (page->now < until) syscall(SYS_nanosleep, &(struct timespec){0, POLL_MS * MS}, NULL);
    leave(place);
    return 0;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *time) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    if (!wait) wait = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    int64_t until = nanoseconds(time);
    _Atomic int64_t *place = enter(until);
    int failed;
    do {
        struct timespec at = soon(CLOCK_MONOTONIC);
        failed = wait(condition, mutex, CLOCK_MONOTONIC, &at);
    } while (failed == ETIMEDOUT && page->now < until);
    leave(place);
    return failed;
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *time) {
    static int (*wait)(sem_t *, clockid_t, const struct timespec *);
    if (!wait) wait = dlsym(RTLD_NEXT, "sem_clockwait");
    int64_t until = nanoseconds(time);
    _Atomic int64_t *place = enter(until);
    int failed;
    do {
        struct timespec at = soon(clock);
        failed = wait(semaphore, clock, &at);
    } while (failed && errno == ETIMEDOUT && page->now < until);
    leave(place);
    return failed;
}
