// Kernels of ours inside MLX's graph, on the CPU: a primitive that calls back when its inputs are
// computed. What MLX offers on the CPU for norms, rotary positions and attention is a dozen small
// operations each; one call does the work of all of them.
#pragma once

#include <stddef.h>

#include "mlx/c/array.h"
#include "mlx/c/vector.h"

#ifdef __cplusplus
extern "C" {
#endif

// A float32 array as rows along its last axis, `stride` numbers from one row to the next. So a part
// cut from the last axis of a larger array need not be copied.
typedef struct cereus_host_rows_ {
  float* data;
  size_t count;
  size_t width;
  size_t stride;
} cereus_host_rows;

// Reads `inputs` and fills `outputs`. Runs on MLX's CPU thread and must not unwind.
typedef void (*cereus_host_kernel)(
    void* context,
    const cereus_host_rows* inputs,
    size_t input_count,
    const cereus_host_rows* outputs,
    size_t output_count);

typedef void (*cereus_host_drop)(void* context);

// Appends `output_count` lazy float32 arrays to `res`. The shape of output i has `ranks[i]` sizes,
// which stand one output after the other in `shapes`. `drop` frees `context` once, when the graph
// no longer needs it, also when this call fails. Returns 0, or 1 after reporting an error as MLX's
// C API does.
int cereus_host_apply(
    mlx_vector_array res,
    const mlx_vector_array inputs,
    const int* shapes,
    const size_t* ranks,
    size_t output_count,
    cereus_host_kernel kernel,
    void* context,
    cereus_host_drop drop);

#ifdef __cplusplus
}
#endif
