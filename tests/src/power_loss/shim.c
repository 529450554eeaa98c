/* Notes down what a process does to the files below a folder, so that a power cut can be played afterwards (trace.rs),
 * and makes disks fail. It stands before libc: what makes system calls of its own is not seen, nor is memory that is
 * mapped. Build: cc -O2 -shared -fPIC -o shim.so shim.c -ldl
 *   POWER_FOLDER  the folder, as its real path; must be there
 *   POWER_TRACE   where the notes go, outside of the folder
 *   POWER_FAULTS  a file of words, read at every call:
 *     eio_fsync           every sync fails
 *     skip_folder_syncs   syncs of folders say that they are done, and do nothing
 *     skip_syncs=TEXT     so do syncs of files and folders whose path ends so; may stand several times
 *     die_at=CALL         the process is killed as soon as a call (rename, unlink, link) is done
 *     die_at_write=TEXT   so it is when it has written much at once (a long record, easily torn) to a file whose path
 *                         ends so
 *
 * A note is `kind u8, object u64, other u64, a u64, b u64, name length u32, other name length u32, data length u32`,
 * then the names and the data. Objects are inode numbers. Notes are written once a call is done, in the order of the
 * calls: one lock is held over both. A sync is noted twice, when it begins and when it is done, since what is written
 * in between is not covered. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite64, int, const void *, size_t, off_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwritev64, int, const struct iovec *, int, off_t);
REAL(ssize_t, pwritev64v2, int, const struct iovec *, int, off_t, int);
REAL(int, ftruncate64, int, off_t);
REAL(int, truncate64, const char *, off_t);
REAL(int, fallocate64, int, int, off_t, off_t);
REAL(int, posix_fallocate64, int, off_t, off_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, openat64, int, const char *, int, ...);
REAL(int, linkat, int, const char *, int, const char *, int);
REAL(int, renameat2, int, const char *, int, const char *, unsigned);
REAL(int, unlinkat, int, const char *, int);
REAL(int, mkdirat, int, const char *, mode_t);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static const char *folder, *faults;
static size_t folder_length;
static uint64_t syncs;

__attribute__((constructor)) static void begin(void) {
  if (real_write) return;
#define FIND(name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)
  FIND(pwrite64); FIND(writev); FIND(pwritev64); FIND(pwritev64v2); FIND(ftruncate64); FIND(truncate64);
  FIND(fallocate64); FIND(posix_fallocate64); FIND(fsync); FIND(fdatasync); FIND(openat64); FIND(linkat);
  FIND(renameat2); FIND(unlinkat); FIND(mkdirat); FIND(write);
  folder = getenv("POWER_FOLDER"); faults = getenv("POWER_FAULTS");
  const char *path = getenv("POWER_TRACE");
  if (!path || !folder) return;
  folder_length = strlen(folder);
  trace = real_openat64(AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Whether a word stands among the faults; where it says `word=`, whether it does with what the path ends in. */
static int fault(const char *word, const char *path) {
  char text[512], *rest = text, *next;
  if (!faults) return 0;
  int file = real_openat64(AT_FDCWD, faults, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  text[length > 0 ? length : 0] = 0;
  while ((next = strtok_r(rest, " \n", &rest))) {
    size_t head = strlen(word), tail = strlen(next);
    if (!path && !strcmp(next, word)) return 1;
    if (!path || strncmp(next, word, head)) continue;
    next += head; tail -= head;
    if (tail <= strlen(path) && !strcmp(path + strlen(path) - tail, next)) return 1;
  }
  return 0;
}

static int is_inside(const char *path) {
  return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

/* The path of what is open, if it is inside. */
static int path_of(int fd, char *path, size_t room) {
  char link[64];
  if (trace < 0 || fd < 0 || fd == trace) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, room - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return is_inside(path);
}

static uint64_t inode(int fd) {
  struct stat found;
  return fstat(fd, &found) ? 0 : found.st_ino;
}

/* A name in a folder. */
struct place { uint64_t folder; const char *name; char parent[4096]; };

static int place(int at, const char *path, struct place *place) {
  char real[4096];
  if (trace < 0 || !path || strlen(path) >= sizeof place->parent) return 0;
  const char *slash = strrchr(path, '/');
  place->name = slash ? slash + 1 : path;
  if (!slash) strcpy(place->parent, ".");
  else snprintf(place->parent, sizeof place->parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
  int errors = errno;
  int parent = real_openat64(at, place->parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int found = parent >= 0 && path_of(parent, real, sizeof real);
  if (found) place->folder = inode(parent);
  if (parent >= 0) close(parent);
  errno = errors;
  return found;
}

static uint64_t inode_at(int at, const char *path, int flags, int *is_folder) {
  struct stat found;
  int errors = errno;
  if (fstatat(at, path, &found, flags)) { errno = errors; return 0; }
  if (is_folder) *is_folder = S_ISDIR(found.st_mode);
  return found.st_ino;
}

struct note { uint8_t kind; uint64_t object, other, a, b; const char *name, *other_name; const void *data; size_t length; };

static void put(struct note note) {
  char head[1 + 4 * 8 + 3 * 4], *at = head;
  uint32_t lengths[3] = {note.name ? strlen(note.name) : 0, note.other_name ? strlen(note.other_name) : 0, note.length};
  uint64_t numbers[4] = {note.object, note.other, note.a, note.b};
  *at++ = note.kind; memcpy(at, numbers, sizeof numbers); memcpy(at + sizeof numbers, lengths, sizeof lengths);
  struct iovec parts[4] = {{head, sizeof head}, {(void *)note.name, lengths[0]}, {(void *)note.other_name, lengths[1]}, {(void *)note.data, lengths[2]}};
  int errors = errno;
  if (real_writev(trace, parts, 4) < 0) abort(); /* A trace with a hole shows nothing. */
  errno = errors;
}

static void die_at(const char *word, const char *what) {
  if (fault(word, what)) { kill(getpid(), SIGKILL); pause(); }
}

/* Content. */

static void wrote(int fd, const struct iovec *parts, int count, ssize_t done, off_t offset) {
  char *data = malloc(done), *at = data;
  for (int n = 0; n < count && at < data + done; n++) {
    size_t left = data + done - at, length = parts[n].iov_len < left ? parts[n].iov_len : left;
    memcpy(at, parts[n].iov_base, length); at += length;
  }
  put((struct note){'W', .object = inode(fd), .a = offset, .data = data, .length = done});
  free(data);
}

static ssize_t do_write(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
  char path[4096];
  begin();
  if (!path_of(fd, path, sizeof path))
    return offset < 0 ? real_writev(fd, parts, count) : flags ? real_pwritev64v2(fd, parts, count, offset, flags) : real_pwritev64(fd, parts, count, offset);
  pthread_mutex_lock(&lock);
  ssize_t done = offset < 0 ? real_writev(fd, parts, count) : flags ? real_pwritev64v2(fd, parts, count, offset, flags) : real_pwritev64(fd, parts, count, offset);
  if (done > 0) {
    int errors = errno;
    if (offset < 0) offset = lseek(fd, 0, SEEK_CUR) - done; /* After an append, too. */
    wrote(fd, parts, count, done, offset);
    errno = errors;
  }
  pthread_mutex_unlock(&lock);
  if (done >= 100000) die_at("die_at_write=", path);
  return done;
}
static ssize_t one(int fd, const void *data, size_t length, off_t offset) {
  struct iovec part = {(void *)data, length};
  return do_write(fd, &part, 1, offset, 0);
}
ssize_t write(int fd, const void *data, size_t length) { return one(fd, data, length, -1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return one(fd, data, length, offset); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return one(fd, data, length, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return do_write(fd, parts, count, -1, 0); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) { return do_write(fd, parts, count, offset, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return do_write(fd, parts, count, offset, 0); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) { return do_write(fd, parts, count, offset, flags); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) { return do_write(fd, parts, count, offset, flags); }

/* The size that a file was given. `b` is 1 where it only grows. */
static int sized(int fd, uint64_t size, int grows, int done) {
  if (!done) put((struct note){'T', .object = inode(fd), .a = size, .b = grows});
  return done;
}
#define INSIDE(fd, otherwise) char path[4096]; begin(); if (!path_of(fd, path, sizeof path)) return otherwise; pthread_mutex_lock(&lock)
#define DONE(result) __typeof__(result) done = result; pthread_mutex_unlock(&lock); return done
int ftruncate64(int fd, off_t size) { INSIDE(fd, real_ftruncate64(fd, size)); DONE(sized(fd, size, 0, real_ftruncate64(fd, size))); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int truncate64(const char *name, off_t size) {
  begin();
  int fd = real_openat64(AT_FDCWD, name, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  int done = ftruncate64(fd, size);
  close(fd);
  return done;
}
int truncate(const char *name, off_t size) { return truncate64(name, size); }
int fallocate64(int fd, int mode, off_t offset, off_t length) {
  INSIDE(fd, real_fallocate64(fd, mode, offset, length));
  if (mode & ~1) { pthread_mutex_unlock(&lock); errno = EOPNOTSUPP; return -1; } /* Holes and the like are not played. */
  int result = real_fallocate64(fd, mode, offset, length);
  DONE(mode ? result : sized(fd, offset + length, 1, result));
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }
int posix_fallocate64(int fd, off_t offset, off_t length) { INSIDE(fd, real_posix_fallocate64(fd, offset, length)); DONE(sized(fd, offset + length, 1, real_posix_fallocate64(fd, offset, length))); }
int posix_fallocate(int fd, off_t offset, off_t length) { return posix_fallocate64(fd, offset, length); }
/* Their callers fall back to writes, which are seen. */
ssize_t copy_file_range(int from, off_t *a, int to, off_t *b, size_t length, unsigned flags) { (void)from; (void)a; (void)to; (void)b; (void)length; (void)flags; errno = ENOSYS; return -1; }

static int do_sync(int fd, int (*real)(int)) {
  char path[4096];
  begin();
  if (!path_of(fd, path, sizeof path)) return real(fd);
  struct stat found;
  if (fstat(fd, &found)) return -1;
  if (fault("eio_fsync", 0)) { errno = EIO; return -1; }
  if (S_ISDIR(found.st_mode) && fault("skip_folder_syncs", 0)) return 0;
  if (fault("skip_syncs=", path)) return 0;
  pthread_mutex_lock(&lock);
  uint64_t number = ++syncs;
  put((struct note){'s', .object = found.st_ino, .a = number});
  pthread_mutex_unlock(&lock);
  int done = real(fd);
  if (!done) {
    pthread_mutex_lock(&lock);
    put((struct note){'S', .object = found.st_ino, .a = number});
    pthread_mutex_unlock(&lock);
  }
  return done;
}
int fsync(int fd) { begin(); return do_sync(fd, real_fsync); }
int fdatasync(int fd) { begin(); return do_sync(fd, real_fdatasync); }

/* Names. */

static int do_open(int at, const char *path, int flags, mode_t mode) {
  struct place where;
  begin();
  int makes = flags & O_CREAT, is_nameless = (flags & O_TMPFILE) == O_TMPFILE, empties = (flags & O_TRUNC) && (flags & O_ACCMODE);
  if (!makes && !is_nameless && !empties) return real_openat64(at, path, flags, mode);
  char inside[4096], within[4096];
  if (is_nameless) snprintf(within, sizeof within, "%s/.", path); /* Its place is the folder itself. */
  if (!place(at, is_nameless ? within : path, &where)) return real_openat64(at, path, flags, mode);
  pthread_mutex_lock(&lock);
  uint64_t before = is_nameless ? 0 : inode_at(at, path, 0, 0);
  int fd = real_openat64(at, path, flags, mode);
  if (fd >= 0 && path_of(fd, inside, sizeof inside)) {
    if (!before) put((struct note){'F', .object = inode(fd)});
    if (!before && !is_nameless) put((struct note){'N', .object = inode(fd), .other = where.folder, .name = where.name});
    if (before && empties) put((struct note){'T', .object = inode(fd)});
  }
  pthread_mutex_unlock(&lock);
  return fd;
}
#define MODE mode_t mode = 0; if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int creat64(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat(const char *path, mode_t mode) { return creat64(path, mode); }

int mkdirat(int at, const char *path, mode_t mode) {
  struct place where;
  begin();
  if (!place(at, path, &where)) return real_mkdirat(at, path, mode);
  pthread_mutex_lock(&lock);
  int done = real_mkdirat(at, path, mode);
  if (!done) {
    uint64_t made = inode_at(at, path, 0, 0);
    put((struct note){'D', .object = made});
    put((struct note){'N', .object = made, .other = where.folder, .name = where.name});
  }
  pthread_mutex_unlock(&lock);
  return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
  struct place where;
  begin();
  if (!place(to, new, &where)) return real_linkat(from, old, to, new, flags);
  pthread_mutex_lock(&lock);
  int done = real_linkat(from, old, to, new, flags);
  if (!done) put((struct note){'N', .object = inode_at(to, new, AT_SYMLINK_NOFOLLOW, 0), .other = where.folder, .name = where.name});
  pthread_mutex_unlock(&lock);
  if (!done) die_at("die_at=", "link");
  return done;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
  struct place there, here;
  begin();
  int is_there = place(from, old, &there), is_here = place(to, new, &here);
  if (!is_there && !is_here) return real_renameat2(from, old, to, new, flags);
  if (!is_there || !is_here || (flags & ~1u)) { errno = EXDEV; return -1; } /* In or out, or an exchange: not played. */
  pthread_mutex_lock(&lock);
  int done = real_renameat2(from, old, to, new, flags);
  if (!done) put((struct note){'R', .object = there.folder, .other = here.folder, .a = inode_at(to, new, AT_SYMLINK_NOFOLLOW, 0), .name = there.name, .other_name = here.name});
  pthread_mutex_unlock(&lock);
  if (!done) die_at("die_at=", "rename");
  return done;
}
int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int at, const char *path, int flags) {
  struct place where;
  begin();
  if (!place(at, path, &where)) return real_unlinkat(at, path, flags);
  pthread_mutex_lock(&lock);
  int done = real_unlinkat(at, path, flags);
  if (!done) put((struct note){'U', .other = where.folder, .name = where.name});
  pthread_mutex_unlock(&lock);
  if (!done) die_at("die_at=", "unlink");
  return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
