/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "backend/vsock/vsock.h"
#include "test.h"

static bool asks(const char *line, u32 *port)
{
    return vsock_parse_connect(line, strlen(line), port);
}

static void vsock__asking_for_a_port(void **state)
{
    static const char *const bad[] = {"",
                                      "\n",
                                      "CONNECT",
                                      "CONNECT \n",
                                      "CONNECT 1",
                                      "CONNECT a\n",
                                      "CONNECT -1\n",
                                      "CONNECT 1 \n",
                                      "CONNECT  1\n",
                                      "connect 1\n",
                                      "CONNECT 4294967295\n",
                                      "CONNECT 99999999999999999999\n",
                                      "CONNECT 1\r\n",
                                      "XCONNECT 1\n"};
    u32 port;

    (void)state;
    assert_true(asks("CONNECT 0\n", &port));
    assert_int_equal(port, 0);
    assert_true(asks("CONNECT 1024\n", &port));
    assert_int_equal(port, 1024);
    assert_true(asks("CONNECT 4294967294\n", &port));
    assert_int_equal(port, 4294967294u);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(asks(bad[i], &port));
}

static void vsock__options(void **state)
{
    static const char *const good[] = {"v", "/tmp/a,,b", "v,cid=3", "v,cid=4294967294"};
    static const char *const bad[] = {"",         ",cid=3",
                                      "/",        "dir/",
                                      "v,cid=2",  "v,cid",
                                      "v,cid=",   "v,cid=4294967295",
                                      "v,cid=3x", "v,cid=99999999999999999999",
                                      "v,x=1",    "v,",
                                      "v,cid=3,"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
        assert_null(vsock_check(good[i]));
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_non_null(vsock_check(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vsock__asking_for_a_port),
        cmocka_unit_test(vsock__options),
    };
    return cmocka_run_group_tests_name("backend-vsock-options", tests, NULL, NULL);
}
