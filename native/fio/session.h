/* One fio job's view of a volume, as a C interface: fio's headers are C only. Shapes: sizes and
 * offsets in bytes, multiples of 512; errors are errno values, with a sentence where a buffer is
 * given for it. curve_attach() may block (control plane), everything later belongs to the job's
 * thread: the event loop and the volume client run inside curve_reap(), so that no I/O crosses
 * threads. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct curve_session;

struct curve_target {
  const char* volume;
  const char* cluster;     /* the cluster's directory */
  const char* secret_file; /* NULL: "secret" in the cluster's directory */
  const char* program;     /* NULL: $CURVE, or curve in PATH */
  const char* map_file;    /* not NULL: a volume map in a file, nobody attaches */
  int shared;              /* attach besides others */
};

enum curve_operation { CURVE_READ, CURVE_WRITE, CURVE_TRIM, CURVE_FLUSH };

struct curve_event {
  void* cookie;
  int error; /* errno or 0 */
};

/* NULL with a sentence in `error` when it fails. The attachment ends with curve_close(), or with
 * the process. */
struct curve_session* curve_attach(const struct curve_target* target, char* error,
                                   size_t error_bytes);
uint64_t curve_size_bytes(const struct curve_session* session);
/* On the thread that will do I/O. 0 or -1 with a sentence in `error`. */
int curve_start(struct curve_session* session, unsigned depth, char* error, size_t error_bytes);
/* At most `depth` at a time. Leaves with the next curve_flush() or curve_reap(). */
void curve_submit(struct curve_session* session, enum curve_operation operation, void* buffer,
                  uint64_t offset, uint64_t bytes, void* cookie);
void curve_flush(struct curve_session* session);
/* Waits for `min` events (not longer than `timeout`, if there is one); returns how many of at most
 * `max` are in `events`. */
unsigned curve_reap(struct curve_session* session, unsigned min, unsigned max,
                    const struct timespec* timeout, struct curve_event* events);
void curve_close(struct curve_session* session);

#ifdef __cplusplus
}
#endif
