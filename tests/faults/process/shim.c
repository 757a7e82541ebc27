/* Faults for fsync and fdatasync, steered by a file: LD_PRELOAD this, name the file in FAULT_FILE.
 *
 * The file holds "eio" (every sync fails from now on), "hang" (syncs wait until the word is gone)
 * or nothing. Looked at before each sync; a missing file means no fault.
 *
 * Beside libfaketime it also gives Python's sleep back, which that library answers with EINVAL:
 * it does not know a sleep up to a point of the monotonic clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef int (*sync_call)(int);

static int word(char *into, size_t size) {
    const char *name = getenv("FAULT_FILE");
    if (name == NULL) return 0;
    int file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t got = read(file, into, size - 1);
    close(file);
    if (got < 0) got = 0;
    into[got] = 0;
    return (int)got;
}

static int faulty(const char *name, int file) {
    char text[16] = "";
    while (word(text, sizeof text) && strncmp(text, "hang", 4) == 0) usleep(20000);
    if (strncmp(text, "eio", 3) == 0) {
        errno = EIO;
        return -1;
    }
    sync_call real = (sync_call)dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return faulty("fsync", file); }
int fdatasync(int file) { return faulty("fdatasync", file); }

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until,
                    struct timespec *left) {
    return syscall(SYS_clock_nanosleep, clock, flags, until, left) == 0 ? 0 : errno;
}
