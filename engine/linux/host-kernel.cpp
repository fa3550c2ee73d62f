#include "host-kernel.h"

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/error.h"
#include "mlx/device.h"
#include "mlx/primitives.h"
#include "mlx/stream.h"

namespace mx = mlx::core;

namespace {

struct Context {
  Context(void* value, cereus_host_drop drop) : value(value), drop(drop) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() {
    drop(value);
  }

  void* value;
  cereus_host_drop drop;
};

// One input: rows where they lie or, when they lie at no one distance, copied side by side first.
class Source {
 public:
  explicit Source(const mx::array& array)
      : data_(array.data<float>()),
        size_(array.size()),
        shape_(array.shape()),
        strides_(array.strides()) {
    width_ = shape_.empty() ? 1 : shape_.back();
    count_ = width_ == 0 ? 0 : size_ / width_;
    in_place_ = find_stride();
  }

  // On MLX's CPU thread, once the input is computed.
  cereus_host_rows rows(std::vector<float>& room) const {
    if (in_place_) {
      return {const_cast<float*>(data_), count_, width_, stride_};
    }
    room.resize(size_);
    std::vector<int64_t> index(shape_.size(), 0);
    for (auto& place : room) {
      int64_t offset = 0;
      for (size_t axis = 0; axis < index.size(); ++axis) {
        offset += index[axis] * strides_[axis];
      }
      place = data_[offset];
      for (size_t axis = index.size(); axis-- > 0;) {
        if (++index[axis] < shape_[axis]) {
          break;
        }
        index[axis] = 0;
      }
    }
    return {room.data(), count_, width_, width_};
  }

 private:
  // Whether all axes but the last are as one: each steps over exactly what the next holds. An axis
  // of one element steps nowhere.
  bool find_stride() {
    stride_ = width_;
    if (size_ == 0) {
      return true;
    }
    if (width_ > 1 && strides_.back() != 1) {
      return false;
    }
    int64_t inner = 1;
    for (int axis = static_cast<int>(shape_.size()) - 2; axis >= 0; --axis) {
      if (shape_[axis] == 1) {
        continue;
      }
      const auto expected = inner == 1 ? strides_[axis] : static_cast<int64_t>(stride_) * inner;
      if (strides_[axis] != expected || expected < static_cast<int64_t>(width_)) {
        return false;
      }
      if (inner == 1) {
        stride_ = static_cast<size_t>(strides_[axis]);
      }
      inner *= shape_[axis];
    }
    return true;
  }

  const float* data_;
  size_t size_;
  mx::Shape shape_;
  mx::Strides strides_;
  size_t width_;
  size_t count_;
  size_t stride_;
  bool in_place_;
};

class HostKernel : public mx::Primitive {
 public:
  HostKernel(
      mx::Stream stream,
      cereus_host_kernel kernel,
      std::shared_ptr<Context> context)
      : Primitive(stream), kernel_(kernel), context_(std::move(context)) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    std::vector<Source> sources(inputs.begin(), inputs.end());
    std::vector<cereus_host_rows> targets;
    for (auto& output : outputs) {
      output.set_data(mx::allocator::malloc(output.nbytes()));
      const size_t width = output.ndim() == 0 ? 1 : output.shape(-1);
      const size_t count = width == 0 ? 0 : output.size() / width;
      targets.push_back({output.data<float>(), count, width, width});
    }
    // The storage outlives the task: MLX holds inputs and outputs of what it enqueued.
    mx::cpu::get_command_encoder(stream()).dispatch(
        [kernel = kernel_,
         context = context_,
         sources = std::move(sources),
         targets = std::move(targets)]() {
          std::vector<std::vector<float>> rooms(sources.size());
          std::vector<cereus_host_rows> rows;
          for (size_t ix = 0; ix < sources.size(); ++ix) {
            rows.push_back(sources[ix].rows(rooms[ix]));
          }
          kernel(context->value, rows.data(), rows.size(), targets.data(), targets.size());
        });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("a host kernel runs on the CPU only");
  }

  const char* name() const override {
    return "HostKernel";
  }

 private:
  cereus_host_kernel kernel_;
  std::shared_ptr<Context> context_;
};

// How mlx-c keeps the handle.
std::vector<mx::array>& arrays_in(mlx_vector_array handle) {
  return *static_cast<std::vector<mx::array>*>(handle.ctx);
}

} // namespace

extern "C" int cereus_host_apply(
    mlx_vector_array res,
    const mlx_vector_array inputs,
    const int* shapes,
    const size_t* ranks,
    size_t output_count,
    cereus_host_kernel kernel,
    void* value,
    cereus_host_drop drop) {
  try {
    auto context = std::make_shared<Context>(value, drop);
    for (const auto& input : arrays_in(inputs)) {
      if (input.dtype() != mx::float32) {
        throw std::invalid_argument("a host kernel takes float32 arrays only");
      }
    }
    std::vector<mx::Shape> output_shapes;
    std::vector<mx::Dtype> dtypes(output_count, mx::float32);
    for (size_t ix = 0; ix < output_count; ++ix) {
      output_shapes.emplace_back(shapes, shapes + ranks[ix]);
      shapes += ranks[ix];
    }
    auto stream = mx::default_stream(mx::Device(mx::Device::cpu));
    auto outputs = mx::array::make_arrays(
        std::move(output_shapes),
        dtypes,
        std::make_shared<HostKernel>(stream, kernel, std::move(context)),
        arrays_in(inputs));
    auto& target = arrays_in(res);
    for (auto& output : outputs) {
      target.push_back(std::move(output));
    }
    return 0;
  } catch (std::exception& error) {
    mlx_error("%s", error.what());
    return 1;
  }
}
