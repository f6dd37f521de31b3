/* A server or a client of libmodbus, for the tests.
 *
 *     libmodbus_peer serve            listens on a free port of 127.0.0.1, prints it, answers one connection at a time
 *     libmodbus_peer serve-rtu LINE   the same as unit 1 of a serial line, 9600 baud
 *     libmodbus_peer ask PORT         asks a fixed list of questions of unit 1, prints a line of numbers for each answer
 *     libmodbus_peer ask-rtu LINE     the same over a serial line
 */
#include <errno.h>
#include <modbus/modbus.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    return 1;
}

static modbus_mapping_t *memory(void)
{
    modbus_mapping_t *map = modbus_mapping_new(100, 100, 200, 200);

    for (int place = 0; map && place < 200; place++) {
        map->tab_registers[place] = (uint16_t)place;
        map->tab_input_registers[place] = (uint16_t)(10000 + place);
    }
    for (int place = 0; map && place < 100; place++) {
        map->tab_bits[place] = place % 3 == 0;
        map->tab_input_bits[place] = place % 5 == 0;
    }
    return map;
}

static void answer(modbus_t *line, modbus_mapping_t *map)
{
    uint8_t question[MODBUS_TCP_MAX_ADU_LENGTH];
    int count;

    while ((count = modbus_receive(line, question)) >= 0)
        if (count > 0 && modbus_reply(line, question, count, map) < 0)
            break;
}

static int serve(void)
{
    modbus_mapping_t *map = memory();
    modbus_t *line = modbus_new_tcp("127.0.0.1", 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;

    if (!map || !line || listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 4) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return fail("serve");
    printf("listening 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        if (modbus_tcp_accept(line, &listener) < 0)
            return fail("accept");
        answer(line, map);
        modbus_close(line);
    }
}

static int serve_rtu(const char *path)
{
    modbus_mapping_t *map = memory();
    modbus_t *line = modbus_new_rtu(path, 9600, 'N', 8, 1);

    if (!map || !line || modbus_set_slave(line, 1) < 0 || modbus_connect(line) < 0)
        return fail("serve-rtu");
    printf("listening %s\n", path);
    fflush(stdout);
    for (;;)
        answer(line, map);
}

static void show_bits(const char *name, int count, const uint8_t *bits)
{
    printf("%s", name);
    for (int place = 0; place < count; place++)
        printf(" %d", bits[place]);
    printf("\n");
}

static void show(const char *name, int count, const uint16_t *values)
{
    printf("%s", name);
    for (int place = 0; place < count; place++)
        printf(" %d", values[place]);
    printf("\n");
}

static int ask(modbus_t *line)
{
    uint8_t bits[64] = { 0 }, id[64] = { 0 };
    uint16_t values[130] = { 0 };
    const uint16_t written[3] = { 7, 8, 9 };
    const uint8_t coils[3] = { 1, 0, 1 };

    /* Half a second is what it waits by itself: too short on a busy machine. */
    if (!line || modbus_set_slave(line, 1) < 0 || modbus_set_response_timeout(line, 20, 0) < 0 || modbus_connect(line) < 0)
        return fail("connect");
    show_bits("coils", modbus_read_bits(line, 0, 10, bits), bits);
    show_bits("inputs", modbus_read_input_bits(line, 5, 6, bits), bits);
    show("holding", modbus_read_registers(line, 100, 3, values), values);
    show("most", modbus_read_registers(line, 0, 125, values), values);
    show("input", modbus_read_input_registers(line, 8, 2, values), values);
    printf("write-bit %d\n", modbus_write_bit(line, 1, 1));
    printf("write-register %d\n", modbus_write_register(line, 1, 99));
    printf("write-bits %d\n", modbus_write_bits(line, 3, 3, coils));
    printf("write-registers %d\n", modbus_write_registers(line, 2, 3, written));
    printf("mask-write %d\n", modbus_mask_write_register(line, 2, 0xF2, 0x25));
    show("write-and-read", modbus_write_and_read_registers(line, 10, 3, written, 9, 4, values), values);
    show_bits("coils", modbus_read_bits(line, 0, 7, bits), bits);
    show("holding", modbus_read_registers(line, 0, 5, values), values);
    show_bits("server-id", modbus_report_slave_id(line, sizeof id, id), id);
    printf("missing %d", modbus_read_registers(line, 60000, 1, values));
    printf(" %s\n", errno == EMBXILADD ? "illegal-data-address" : modbus_strerror(errno));
    modbus_close(line);
    modbus_free(line);
    return 0;
}

int main(int count, char **words)
{
    if (count == 2 && !strcmp(words[1], "serve"))
        return serve();
    if (count == 3 && !strcmp(words[1], "serve-rtu"))
        return serve_rtu(words[2]);
    if (count == 3 && !strcmp(words[1], "ask"))
        return ask(modbus_new_tcp("127.0.0.1", atoi(words[2])));
    if (count == 3 && !strcmp(words[1], "ask-rtu"))
        return ask(modbus_new_rtu(words[2], 9600, 'N', 8, 1));
    fprintf(stderr, "usage: libmodbus_peer serve | serve-rtu LINE | ask PORT | ask-rtu LINE\n");
    return 2;
}
