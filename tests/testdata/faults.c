/* Makes reads of one file fail as a broken disk does, for LD_PRELOAD.

   FAIL_PATH: part of the path. FAIL_ERRNO: the error. FAIL_TIMES: so many reads of a
   process fail, then all work; without it all fail. FAIL_CALL: `read` or `pread`;
   without it both. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int failed;

static int fails(int file, const char *call) {
  const char *path = getenv("FAIL_PATH"), *only = getenv("FAIL_CALL");
  const char *times = getenv("FAIL_TIMES");
  char link[64], target[PATH_MAX + 1];
  if (!path || (only && strcmp(only, call))) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, target, PATH_MAX);
  if (length < 0) return 0;
  target[length] = 0;
  if (!strstr(target, path)) return 0;
  if (times && atomic_fetch_add(&failed, 1) >= atoi(times)) return 0;
  errno = atoi(getenv("FAIL_ERRNO"));
  return 1;
}

ssize_t read(int file, void *buffer, size_t count) {
  static ssize_t (*real)(int, void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "read");
  return fails(file, "read") ? -1 : real(file, buffer, count);
}

ssize_t pread(int file, void *buffer, size_t count, off_t offset) {
  static ssize_t (*real)(int, void *, size_t, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "pread");
  return fails(file, "pread") ? -1 : real(file, buffer, count, offset);
}

ssize_t pread64(int file, void *buffer, size_t count, off64_t offset) {
  static ssize_t (*real)(int, void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pread64");
  return fails(file, "pread") ? -1 : real(file, buffer, count, offset);
}
