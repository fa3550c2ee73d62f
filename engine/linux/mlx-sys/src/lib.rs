//! Declarations of the MLX C API, made by bindgen from the headers of mlx-c 0.7.0.
#![allow(non_upper_case_globals)]
#![allow(non_camel_case_types)]
#![allow(non_snake_case)]
#![allow(unsafe_op_in_unsafe_fn)]
#![allow(clippy::all)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

#[cfg(not(target_arch = "aarch64"))]
pub use half::*;

/// mlx-c declares its two 16-bit float types and their accessors for Arm only. Elsewhere they are
/// added here, in the shapes that mlx-rs expects, on top of the `uint16` accessors: MLX's storage
/// is the same two bytes.
#[cfg(not(target_arch = "aarch64"))]
mod half {
    use super::{mlx_array, mlx_array_data_uint16, mlx_array_item_uint16};

    #[repr(transparent)]
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct float16_t(pub u16);

    pub type bfloat16_t = u16;

    /// # Safety
    /// `res` is writable and `arr` is a live float16 array of one element.
    pub unsafe fn mlx_array_item_float16(
        res: *mut float16_t,
        arr: mlx_array,
    ) -> ::std::os::raw::c_int {
        // SAFETY: `float16_t` is transparent over `u16`; the rest is the caller's promise.
        unsafe { mlx_array_item_uint16(res.cast(), arr) }
    }

    /// # Safety
    /// `res` is writable and `arr` is a live bfloat16 array of one element.
    pub unsafe fn mlx_array_item_bfloat16(
        res: *mut bfloat16_t,
        arr: mlx_array,
    ) -> ::std::os::raw::c_int {
        // SAFETY: the caller's promise.
        unsafe { mlx_array_item_uint16(res, arr) }
    }

    /// # Safety
    /// `arr` is a live, evaluated float16 array.
    pub unsafe fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t {
        // SAFETY: the pointer is the array's storage, whose elements are two bytes wide.
        unsafe { mlx_array_data_uint16(arr).cast() }
    }

    /// # Safety
    /// `arr` is a live, evaluated bfloat16 array.
    pub unsafe fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t {
        // SAFETY: the pointer is the array's storage, whose elements are two bytes wide.
        unsafe { mlx_array_data_uint16(arr) }
    }
}
