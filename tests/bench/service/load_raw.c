/* Clients of Redis and memcached: plain sockets, one thread, as many requests under way on each as are wanted. */
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILL_BATCH 1000u
#define READ_STEP  ((size_t)1 << 18)
#define LINE_MAX   128u /* of an answer */
#define NONE       SIZE_MAX

struct bytes {
    uint8_t *data;
    size_t begin, end, capacity;
};

struct slot {
    uint64_t *picks;
    uint64_t begun_ns;
};

struct connection {
    int fd;
    const struct load *load;
    struct bytes out, in;
    struct slot *slots; /* in the order of the requests, going round */
    size_t slot_count, first, open;
    uint64_t next;  /* value of the first one's answer that is to come */
    size_t payload; /* bytes of a value that come next; NONE: a line does */
    uint64_t bytes; /* of that answer so far */
};

/* How a protocol asks, and what a line of an answer means. */
struct speech {
    /* Append the request for `count` keys. */
    void (*ask)(struct bytes *out, const uint64_t *picks, size_t count);
    /* Take a line without its end. Returns: whether it ends an answer; `*out_payload` is set where a value follows. */
    bool (*line)(const char *line, const struct connection *connection, size_t *out_payload);
    bool ends_with_value; /* the answer's last value ends it */
    void (*store)(struct bytes *out, const struct work *work, uint64_t i);
    const char *stored;
};

/* ---- bytes ---- */

static uint8_t *reserve(struct bytes *bytes, size_t len)
{
    if (bytes->begin == bytes->end)
        bytes->begin = bytes->end = 0;
    if (bytes->capacity - bytes->end < len && bytes->begin > 0) {
        memmove(bytes->data, bytes->data + bytes->begin, bytes->end - bytes->begin);
        bytes->end -= bytes->begin;
        bytes->begin = 0;
    }
    if (bytes->capacity - bytes->end < len) {
        bytes->capacity = 2 * (bytes->end + len);
        bytes->data = realloc(bytes->data, bytes->capacity);
        CHECK(bytes->data != NULL);
    }
    return bytes->data + bytes->end;
}

static void put(struct bytes *bytes, const void *data, size_t len)
{
    memcpy(reserve(bytes, len), data, len);
    bytes->end += len;
}

static void put_text(struct bytes *bytes, const char *text)
{
    put(bytes, text, strlen(text));
}

static void put_number(struct bytes *bytes, const char *before, size_t number, const char *after)
{
    char text[LINE_MAX];
    int len = snprintf(text, sizeof text, "%s%zu%s", before, number, after);
    put(bytes, text, (size_t)len);
}

static void put_key(struct bytes *bytes, uint64_t i)
{
    bytes->end += key_format((char *)reserve(bytes, KEY_LEN_MAX), i);
}

static void put_value(struct bytes *bytes, const struct work *work, uint64_t i)
{
    work_value(work, i, reserve(bytes, work->value_len));
    bytes->end += work->value_len;
    put(bytes, "\r\n", 2);
}

/* ---- Redis ---- */

static void put_bulk_key(struct bytes *out, uint64_t i)
{
    char key[KEY_LEN_MAX];
    size_t len = key_format(key, i);
    put_number(out, "$", len, "\r\n");
    put(out, key, len);
    put(out, "\r\n", 2);
}

static void redis_ask(struct bytes *out, const uint64_t *picks, size_t count)
{
    put_number(out, "*", count + 1, count == 1 ? "\r\n$3\r\nGET\r\n" : "\r\n$4\r\nMGET\r\n");
    for (size_t k = 0; k < count; k++)
        put_bulk_key(out, picks[k]);
}

static bool redis_line(const char *line, const struct connection *connection, size_t *out_payload)
{
    if (line[0] == '*')
        CHECK(strtoull(line + 1, NULL, 10) == connection->load->work->batch);
    else if (line[0] == '$' && line[1] != '-')
        *out_payload = strtoull(line + 1, NULL, 10);
    else
        die("Redis answers %s", line);
    return false;
}

static void redis_store(struct bytes *out, const struct work *work, uint64_t i)
{
    put_text(out, "*3\r\n$3\r\nSET\r\n");
    put_bulk_key(out, i);
    put_number(out, "$", work->value_len, "\r\n");
    put_value(out, work, i);
}

/* ---- memcached ---- */

static void memcached_ask(struct bytes *out, const uint64_t *picks, size_t count)
{
    put_text(out, "get");
    for (size_t k = 0; k < count; k++) {
        put(out, " ", 1);
        put_key(out, picks[k]);
    }
    put(out, "\r\n", 2);
}

static bool memcached_line(const char *line, const struct connection *connection, size_t *out_payload)
{
    (void)connection;
    if (strncmp(line, "VALUE ", 6) == 0)
        *out_payload = strtoull(strrchr(line, ' '), NULL, 10);
    else if (strcmp(line, "END") == 0)
        return true;
    else
        die("memcached answers %s", line);
    return false;
}

static void memcached_store(struct bytes *out, const struct work *work, uint64_t i)
{
    put_text(out, "set ");
    put_key(out, i);
    put_number(out, " 0 0 ", work->value_len, "\r\n");
    put_value(out, work, i);
}

static void meta_ask(struct bytes *out, const uint64_t *picks, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        put_text(out, "mg ");
        put_key(out, picks[k]);
        put_text(out, " v\r\n");
    }
    put_text(out, "mn\r\n");
}

static bool meta_line(const char *line, const struct connection *connection, size_t *out_payload)
{
    (void)connection;
    if (strncmp(line, "VA ", 3) == 0)
        *out_payload = strtoull(line + 3, NULL, 10);
    else if (strcmp(line, "MN") == 0)
        return true;
    else
        die("memcached answers %s", line);
    return false;
}

static const struct speech speeches[] = {
    [RAW_REDIS] = {redis_ask, redis_line, true, redis_store, "+OK\r\n"},
    [RAW_MEMCACHED] = {memcached_ask, memcached_line, false, memcached_store, "STORED\r\n"},
    [RAW_MEMCACHED_META] = {meta_ask, meta_line, false, memcached_store, "STORED\r\n"},
};

/* ---- connections ---- */

static int connect_to(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(address, ':');
    CHECK(colon != NULL && (size_t)(colon - address) < sizeof host);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    CHECK(inet_pton(AF_INET, host, &to.sin_addr) == 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("%s: %s", address, strerror(errno));
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0);
    return fd;
}

/* Send what the socket takes now. */
static void flush(struct connection *connection)
{
    struct bytes *out = &connection->out;
    while (out->begin < out->end) {
        ssize_t sent = send(connection->fd, out->data + out->begin, out->end - out->begin, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0)
            die("a connection broke: %s", strerror(errno));
        out->begin += (size_t)sent;
    }
}

static void begin(struct connection *connection, const struct speech *speech)
{
    const struct load *load = connection->load;
    if (connection->open == connection->slot_count || !meter_begin(load->meter))
        return;
    struct slot *slot = &connection->slots[(connection->first + connection->open++) % connection->slot_count];
    work_pick(load->work, slot->picks);
    slot->begun_ns = meter_now();
    speech->ask(&connection->out, slot->picks, load->work->batch);
}

static void end(struct connection *connection, const struct speech *speech)
{
    const struct load *load = connection->load;
    CHECK(connection->open > 0 && connection->next == load->work->batch);
    meter_end(load->meter, connection->slots[connection->first].begun_ns, connection->bytes);
    connection->next = 0;
    connection->bytes = 0;
    connection->first = (connection->first + 1) % connection->slot_count;
    connection->open--;
    begin(connection, speech);
}

static bool take_value(struct connection *connection, const struct speech *speech)
{
    const struct work *work = connection->load->work;
    struct bytes *in = &connection->in;
    size_t len = connection->payload;
    if (in->end - in->begin < len + 2)
        return false;
    uint64_t pick = connection->slots[connection->first].picks[connection->next];
    if (connection->next >= work->batch || len != work->value_len ||
        !work_is_value(work, pick, 0, in->data + in->begin, len))
        die("the value of key %llu is wrong", (unsigned long long)pick);
    in->begin += len + 2;
    connection->bytes += len + 2;
    connection->payload = NONE;
    if (++connection->next == work->batch && speech->ends_with_value)
        end(connection, speech);
    return true;
}

static bool take_line(struct connection *connection, const struct speech *speech)
{
    struct bytes *in = &connection->in;
    const uint8_t *line_end = in->begin < in->end ? memchr(in->data + in->begin, '\n', in->end - in->begin) : NULL;
    char line[LINE_MAX];
    if (line_end == NULL)
        return false;
    size_t len = (size_t)(line_end - (in->data + in->begin));
    CHECK(connection->open > 0 && len >= 1 && len < sizeof line);
    memcpy(line, in->data + in->begin, len - 1);
    line[len - 1] = '\0';
    in->begin += len + 1;
    connection->bytes += len + 1;
    if (speech->line(line, connection, &connection->payload))
        end(connection, speech);
    return true;
}

static void receive(struct connection *connection, const struct speech *speech)
{
    uint8_t *at = reserve(&connection->in, READ_STEP);
    ssize_t came = recv(connection->fd, at, READ_STEP, MSG_DONTWAIT);
    if (came < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (came <= 0)
        die("a connection broke: %s", came < 0 ? strerror(errno) : "closed");
    connection->in.end += (size_t)came;
    while (connection->payload == NONE ? take_line(connection, speech) : take_value(connection, speech))
        ;
}

static void open_connection(struct connection *connection, const struct load *load, size_t slots)
{
    *connection = (struct connection){.load = load, .slot_count = slots, .payload = NONE};
    connection->fd = connect_to(load->address);
    connection->slots = calloc(slots, sizeof *connection->slots);
    CHECK(slots > 0 && connection->slots != NULL);
    for (size_t i = 0; i < slots; i++) {
        connection->slots[i].picks = malloc(load->work->batch * sizeof(uint64_t));
        CHECK(connection->slots[i].picks != NULL);
    }
}

static void close_connection(struct connection *connection)
{
    close(connection->fd);
    for (size_t i = 0; i < connection->slot_count; i++)
        free(connection->slots[i].picks);
    free(connection->slots);
    free(connection->out.data);
    free(connection->in.data);
}

static void run(struct connection *connections, size_t count, struct pollfd *polled, const struct speech *speech)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < connections[i].slot_count; k++)
            begin(&connections[i], speech);
    while (!meter_done(connections[0].load->meter)) {
        for (size_t i = 0; i < count; i++) {
            flush(&connections[i]);
            bool pending = connections[i].out.begin < connections[i].out.end;
            polled[i] = (struct pollfd){.fd = connections[i].fd, .events = (short)(POLLIN | (pending ? POLLOUT : 0))};
        }
        CHECK(poll(polled, count, -1) > 0 || errno == EINTR);
        for (size_t i = 0; i < count; i++)
            if (polled[i].revents & (POLLIN | POLLHUP | POLLERR))
                receive(&connections[i], speech);
    }
}

void load_raw(const struct load *load, enum raw_protocol protocol)
{
    const struct speech *speech = &speeches[protocol];
    size_t count = load->connections;
    struct connection *connections = calloc(count, sizeof *connections);
    struct pollfd *polled = calloc(count, sizeof *polled);
    CHECK(connections != NULL && polled != NULL);
    for (size_t i = 0; i < count; i++)
        open_connection(&connections[i], load, (load->meter->in_flight + count - 1 - i) / count);
    meter_warm(load->meter);
    run(connections, count, polled, speech);
    meter_start(load->meter);
    run(connections, count, polled, speech);
    meter_stop(load->meter);
    for (size_t i = 0; i < count; i++)
        close_connection(&connections[i]);
    free(connections);
    free(polled);
}

/* ---- filling ---- */

static void send_all(int fd, struct bytes *out)
{
    for (; out->begin < out->end;) {
        ssize_t sent = send(fd, out->data + out->begin, out->end - out->begin, MSG_NOSIGNAL);
        CHECK(sent > 0);
        out->begin += (size_t)sent;
    }
}

void load_raw_fill(const struct load *load, enum raw_protocol protocol)
{
    const struct speech *speech = &speeches[protocol];
    size_t len = strlen(speech->stored);
    struct bytes out = {0};
    int fd = connect_to(load->address);
    for (uint64_t first = 0; first < load->work->keys; first += FILL_BATCH) {
        uint64_t until = first + FILL_BATCH < load->work->keys ? first + FILL_BATCH : load->work->keys;
        for (uint64_t i = first; i < until; i++)
            speech->store(&out, load->work, i);
        send_all(fd, &out);
        for (uint64_t i = first; i < until; i++) {
            char answer[16] = "";
            CHECK(recv(fd, answer, len, MSG_WAITALL) == (ssize_t)len);
            if (strncmp(answer, speech->stored, len) != 0)
                die("a value isn't stored: %s", answer);
        }
    }
    close(fd);
    free(out.data);
}
