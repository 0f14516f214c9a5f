/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "x86/synthetic.h"

static const char *vendor;
static u32 host_max_basic, host_max_ext;

static void everything(u32 leaf, u32 subleaf, u32 out[4])
{
    memset(out, 0xff, 16);
    switch (leaf) {
    case 0:
        out[0] = host_max_basic;
        memcpy(&out[1], vendor, 4);
        memcpy(&out[3], vendor + 4, 4);
        memcpy(&out[2], vendor + 8, 4);
        break;
    case 1:
        out[0] = 0x000806f8;
        break;
    case 4:
    case 0x8000001d:
        out[0] = subleaf < 4 ? 0xfc000001u | (subleaf < 2 ? 1 : subleaf) << 5 : 0;
        break;
    case 7:
        out[0] = 2;
        break;
    case 0xd: {
        static const u32 size[] = {0, 0, 256, 64, 64, 64, 512, 1024, 128, 8};
        static const u32 offset[] = {0, 0, 576, 960, 1024, 1088, 1152, 1664, 0, 2688};
        if (subleaf >= 2 && subleaf <= 9) {
            out[0] = size[subleaf];
            out[1] = offset[subleaf];
            out[2] = 0;
        }
        break;
    }
    case 0x80000000:
        out[0] = host_max_ext;
        break;
    case 0x80000008:
        out[0] = 0x3934;
        break;
    default:
        break;
    }
}

void synthetic_model(struct x86_cpu_model *m, bool amd, u64 xcr0, const struct x86_cpu_options *opt)
{
    vendor = amd ? "AuthenticAMD" : "GenuineIntel";
    host_max_basic = 0x20;
    host_max_ext = amd ? 0x80000026 : 0x80000008;
    x86_cpu_model_build(m, everything, xcr0, opt);
}
