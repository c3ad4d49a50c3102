/* The file of a ring: made whole before it has a name, checked before it is believed. */
#include "_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LAYOUT ((uint32_t)(sizeof(struct ring_header) << 8 | sizeof(pthread_mutex_t)))

size_t ring_file_size(uint64_t capacity)
{
    size_t page = 4096;
    return ((sizeof(struct ring_header) + page - 1) & ~(page - 1)) + capacity;
}

static uint64_t pid_namespace(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static void read_boot_id(uint64_t id[2])
{
    char text[64] = {0};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    id[0] = id[1] = 0;
    if (fd < 0)
        return;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    for (ssize_t i = 0, digit = 0; i < length; i++) {
        char c = text[i];
        int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (value >= 0 && digit < 32) {
            id[digit / 16] = id[digit / 16] << 4 | (uint64_t)value;
            digit++;
        }
    }
}

static int init_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    int rc = pthread_mutexattr_init(&attributes);
    if (rc != 0)
        return rc;
    rc = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (rc == 0)
        rc = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (rc == 0)
        rc = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return rc;
}

static int init_header(struct ring_header *h, uint64_t capacity, uint64_t identity)
{
    int rc = init_mutex(&h->put_mutex);
    if (rc == 0)
        rc = init_mutex(&h->get_mutex);
    for (unsigned i = 0; rc == 0 && i < RING_SLOTS; i++)
        rc = init_mutex(&h->slots[i].mutex);
    h->version = RING_VERSION;
    h->layout = LAYOUT;
    h->capacity = capacity;
    h->file_size = ring_file_size(capacity);
    h->pid_namespace = pid_namespace();
    read_boot_id(h->boot_id);
    h->identity = identity;
    h->space_wanted = UINT64_MAX;
    h->magic = RING_MAGIC;
    return rc;
}

/* The file is still nameless, so nobody sees it half made.  Returns an errno. */
int ring_create(int fd, uint64_t capacity, uint64_t identity)
{
    size_t size = ring_file_size(capacity);
    /* Claims every page now: a full disk is an error here instead of a SIGBUS later. */
    int rc;
    do
        rc = posix_fallocate(fd, 0, (off_t)size);
    while (rc == EINTR);
    if (rc != 0)
        return rc;
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return errno;
    rc = init_header(map, capacity, identity);
    if (rc == 0)
        rc = ring_try_commit(map);
    munmap(map, size);
    return rc;
}

static const char *refusal(const struct ring_header *h, uint64_t size)
{
    uint64_t boot_id[2];
    if (h->magic != RING_MAGIC)
        return "it is not a SageQueue file";
    if (h->version != RING_VERSION)
        return "it was made by another version of SageQueue";
    if (h->layout != LAYOUT)
        return "it was made by a program with another C library or architecture";
    if (h->file_size != size || h->capacity == 0 || (h->capacity & (h->capacity - 1)) != 0 ||
        ring_file_size(h->capacity) != size)
        return "its size is not the one noted in it: the file was cut or extended";
    read_boot_id(boot_id);
    if (h->boot_id[0] != boot_id[0] || h->boot_id[1] != boot_id[1])
        return "it is left over from before the last reboot";
    if (h->pid_namespace != pid_namespace())
        return "it belongs to another pid namespace (another container?): the death of peers "
               "could not be noticed across that border";
    return NULL;
}

static int several_cpus(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set) > 1;
    return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

/* Returns NULL, or why not; *error is then an errno or 0 for a refused file. */
const char *ring_attach(struct ring *ring, int fd, int *error)
{
    struct stat st;
    *error = 0;
    if (fstat(fd, &st) != 0) {
        *error = errno;
        return "fstat";
    }
    if ((uint64_t)st.st_size < sizeof(struct ring_header))
        return "it is too short to be a SageQueue file";
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        *error = errno;
        return "mmap";
    }
    const char *reason = refusal(map, (uint64_t)st.st_size);
    if (reason != NULL) {
        munmap(map, (size_t)st.st_size);
        return reason;
    }
    memset(ring, 0, sizeof *ring);
    ring->header = map;
    ring->capacity = ring->header->capacity;
    ring->mapped = (size_t)st.st_size;
    ring->data = (uint8_t *)map + (ring->mapped - ring->capacity);
    ring->may_spin = several_cpus();
    return NULL;
}

void ring_detach(struct ring *ring)
{
    if (ring->header != NULL)
        munmap(ring->header, ring->mapped);
    ring->header = NULL;
}
