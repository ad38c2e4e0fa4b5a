/* The fio ioengine `curve`: benchmarks measure the system itself, not a kernel client.
 *   fio --ioengine=external:PATH/fio-curve.so --cluster=DIR --volume=NAME --size=... --rw=randwrite
 * --iodepth=32 One job is one event loop and one volume client, run on the job's own thread inside
 * getevents. The file of a job is the whole volume. Built for exactly one version of fio
 * (tools/fetch-fio); another one refuses to load it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fio.h"
#include "optgroup.h"

#include "native/fio/session.h"

struct curve_options {
  void* pad; /* fio wants no option at offset 0 */
  char* volume;
  char* cluster;
  char* secret_file;
  char* program;
  char* map_file;
  unsigned int shared;
};

struct curve_data {
  struct curve_session* session;
  struct curve_event* events;
};

#define CURVE_STRING(option_name, member, text)                                         \
  {                                                                                     \
    .name = option_name, .lname = option_name, .type = FIO_OPT_STR_STORE, .help = text, \
    .off1 = offsetof(struct curve_options, member), .category = FIO_OPT_C_ENGINE,       \
    .group = FIO_OPT_G_INVALID                                                          \
  }

static struct fio_option options[] = {
    CURVE_STRING("volume", volume, "Name of the volume"),
    CURVE_STRING("cluster", cluster, "Directory of the cluster (curve up --dir)"),
    CURVE_STRING("secret_file", secret_file,
                 "File with the cluster's secret; default: 'secret' in the cluster's directory"),
    CURVE_STRING("curve_program", program, "The curve program; default: $CURVE, or curve in PATH"),
    CURVE_STRING("volume_map", map_file,
                 "Use the volume map in this file instead of attaching the volume"),
    {
        .name = "shared",
        .lname = "shared",
        .type = FIO_OPT_BOOL,
        .off1 = offsetof(struct curve_options, shared),
        .help = "Attach the volume besides others; set by itself when several jobs use one volume",
        .def = "0",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {.name = NULL},
};

static bool same_text(const char* a, const char* b) { return a == b || (a && b && !strcmp(a, b)); }

/* An exclusive attachment fences the one before: jobs on one volume must share it. */
static bool volume_is_used_by_others(struct thread_data* td) {
  struct curve_options* own = td->eo;
  struct thread_data* other;
  int i;

  for_each_td(other, i) {
    struct curve_options* o = other->eo;
    if (other == td || other->io_ops != td->io_ops || !o) continue;
    if (same_text(o->volume, own->volume) && same_text(o->cluster, own->cluster)) return true;
  }
  return false;
}

/* In the main thread, before jobs run: attaches, to know the size. */
static int curve_fio_setup(struct thread_data* td) {
  struct curve_options* o = td->eo;
  struct curve_target target = {o->volume,  o->cluster,  o->secret_file,
                                o->program, o->map_file, (int)o->shared};
  struct curve_data* data = td->io_ops_data;
  char error[512] = "";

  if (!data) {
    td->o.use_thread = 1; /* an attachment made here must belong to the process that ends it */
    if (volume_is_used_by_others(td)) target.shared = 1;
    data = calloc(1, sizeof(*data));
    if (!data) return 1;
    data->events = calloc(td->o.iodepth + 1, sizeof(*data->events));
    data->session = curve_attach(&target, error, sizeof(error));
    if (!data->session) {
      log_err("curve: %s\n", error);
      free(data->events);
      free(data);
      return 1;
    }
    td->io_ops_data = data;
  }
  if (!td->files_index) {
    add_file(td, td->o.filename ? td->o.filename : o->volume ? o->volume : "volume", 0, 0);
    td->o.nr_files = td->o.nr_files ? td->o.nr_files : 1;
    td->o.open_files++;
  }
  td->files[0]->real_file_size = curve_size_bytes(data->session);
  fio_file_set_size_known(td->files[0]);
  return 0;
}

static int curve_fio_init(struct thread_data* td) {
  struct curve_data* data = td->io_ops_data;
  char error[512] = "";

  if (!data || curve_start(data->session, td->o.iodepth, error, sizeof(error)) != 0) {
    log_err("curve: %s\n", error);
    return 1;
  }
  return 0;
}

static void curve_fio_cleanup(struct thread_data* td) {
  struct curve_data* data = td->io_ops_data;

  if (!data) return;
  curve_close(data->session);
  free(data->events);
  free(data);
  td->io_ops_data = NULL;
}

static enum fio_q_status curve_fio_queue(struct thread_data* td, struct io_u* io_u) {
  struct curve_data* data = td->io_ops_data;
  enum curve_operation operation;

  fio_ro_check(td, io_u);
  switch (io_u->ddir) {
    case DDIR_READ:
      operation = CURVE_READ;
      break;
    case DDIR_WRITE:
      operation = CURVE_WRITE;
      break;
    case DDIR_TRIM:
      operation = CURVE_TRIM;
      break;
    case DDIR_SYNC:
    case DDIR_DATASYNC:
      operation = CURVE_FLUSH;
      break;
    default:
      io_u->error = EINVAL;
      return FIO_Q_COMPLETED;
  }
  curve_submit(data->session, operation,
               operation == CURVE_READ || operation == CURVE_WRITE ? io_u->xfer_buf : NULL,
               io_u->offset, io_u->xfer_buflen, io_u);
  return FIO_Q_QUEUED;
}

/* What is queued leaves with getevents, many at a time; at once only where the job pauses between
 * I/Os. */
static int curve_fio_commit(struct thread_data* td) {
  struct curve_data* data = td->io_ops_data;

  if (td->o.thinktime || td->flags & TD_F_CHECK_RATE) curve_flush(data->session);
  io_u_mark_submit(td, 1);
  return 0;
}

static int curve_fio_getevents(struct thread_data* td, unsigned int min, unsigned int max,
                               const struct timespec* t) {
  struct curve_data* data = td->io_ops_data;

  return (int)curve_reap(data->session, min, max, t, data->events);
}

static struct io_u* curve_fio_event(struct thread_data* td, int event) {
  struct curve_data* data = td->io_ops_data;
  struct io_u* io_u = data->events[event].cookie;

  io_u->error = (unsigned int)data->events[event].error;
  return io_u;
}

static int curve_fio_open(struct thread_data* td, struct fio_file* f) { return 0; }
static int curve_fio_close(struct thread_data* td, struct fio_file* f) { return 0; }
static int curve_fio_invalidate(struct thread_data* td, struct fio_file* f) { return 0; }

static int curve_fio_get_file_size(struct thread_data* td, struct fio_file* f) {
  struct curve_data* data = td->io_ops_data;

  if (!data) return 1;
  f->real_file_size = curve_size_bytes(data->session);
  fio_file_set_size_known(f);
  return 0;
}

__attribute__((visibility("default"))) struct ioengine_ops ioengine = {
    .name = "curve",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO | FIO_NOEXTEND | FIO_NODISKUTIL | FIO_RAWIO,
    .setup = curve_fio_setup,
    .init = curve_fio_init,
    .queue = curve_fio_queue,
    .commit = curve_fio_commit,
    .getevents = curve_fio_getevents,
    .event = curve_fio_event,
    .cleanup = curve_fio_cleanup,
    .open_file = curve_fio_open,
    .close_file = curve_fio_close,
    .invalidate = curve_fio_invalidate,
    .get_file_size = curve_fio_get_file_size,
    .options = options,
    .option_struct_size = sizeof(struct curve_options),
};

/* fio checks the interface's version; its structures change more often than that. A wrong version
 * makes it refuse the engine. */
__attribute__((constructor)) static void check_fio_version(void) {
  const char* running = dlsym(RTLD_DEFAULT, "fio_version_string");

  if (running && !strcmp(running, CURVE_FIO_VERSION)) return;
  fprintf(stderr,
          "curve: this engine was built for %s, but this is %s; use the fio that tools/fetch-fio "
          "builds\n",
          CURVE_FIO_VERSION, running ? running : "not fio");
  ioengine.version = 0;
}
