// mlx-c uses std::format, which gcc has from version 13 on. Before that, fmt's own stands in.
#pragma once
#ifdef __cplusplus
#include <version>
#ifndef __cpp_lib_format
#define FMT_HEADER_ONLY
#include <fmt/format.h>
namespace std {
using fmt::format;
}
#endif
#endif
