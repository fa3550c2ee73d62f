//! The CPU kernels as operations of MLX's graph: lazy like the others, run on MLX's own thread when
//! their inputs are computed.
#![allow(
    unsafe_code,
    reason = "the C API of the primitive that calls kernels back"
)]

use std::ffi::c_void;

use mlx_rs::Array;
use mlx_rs::error::Exception;

use crate::kernels::Rows;

/// Computes outputs, each all zeros or rubbish before, from the inputs' rows.
pub(super) trait Kernel: Send + Sync + 'static {
    fn run(&self, inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]);
}

impl<F> Kernel for F
where
    F: Fn(&[Rows<'_>], &mut [&mut [f32]]) + Send + Sync + 'static,
{
    fn run(&self, inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]) {
        self(inputs, outputs);
    }
}

/// Float32 arrays of `shapes` that `kernel` will compute from float32 `inputs`. An input may be a
/// part of a larger array: cut along the last axis it is read where it lies, else copied.
///
/// # Errors
/// An input has another type.
pub(super) fn apply<K: Kernel>(
    inputs: &[&Array],
    shapes: &[&[i32]],
    kernel: K,
) -> Result<Vec<Array>, Exception> {
    let handles: Vec<mlx_sys::mlx_array> = inputs.iter().map(|array| array.as_ptr()).collect();
    let sizes: Vec<i32> = shapes.concat();
    let ranks: Vec<usize> = shapes.iter().map(|shape| shape.len()).collect();
    let context = Box::into_raw(Box::new(kernel));
    // SAFETY: the handles live through the call, the vectors are freed below, the sizes are those
    // that the ranks count, and the context goes with the functions made for its type.
    unsafe {
        let sources = mlx_sys::mlx_vector_array_new_data(handles.as_ptr(), handles.len());
        let made = mlx_sys::mlx_vector_array_new();
        let status = mlx_sys::cereus_host_apply(
            made,
            sources,
            sizes.as_ptr(),
            ranks.as_ptr(),
            ranks.len(),
            Some(run::<K>),
            context.cast(),
            Some(free::<K>),
        );
        let arrays = (0..mlx_sys::mlx_vector_array_size(made)).map(|ix| {
            let mut array = mlx_sys::mlx_array_new();
            mlx_sys::mlx_vector_array_get(&raw mut array, made, ix);
            Array::from_ptr(array)
        });
        let arrays: Vec<Array> = arrays.collect();
        mlx_sys::mlx_vector_array_free(made);
        mlx_sys::mlx_vector_array_free(sources);
        if status != 0 || arrays.len() != shapes.len() {
            return Err(Exception::custom("MLX refused the inputs of a host kernel"));
        }
        Ok(arrays)
    }
}

/// The same with one output.
pub(super) fn apply_one<K: Kernel>(
    inputs: &[&Array],
    shape: &[i32],
    kernel: K,
) -> Result<Array, Exception> {
    let mut made = apply(inputs, &[shape], kernel)?;
    Ok(made.pop().expect("as many arrays as shapes"))
}

/// Called by MLX's thread. A panic in a kernel ends the process: it cannot unwind through C++.
unsafe extern "C" fn run<K: Kernel>(
    context: *mut c_void,
    inputs: *const mlx_sys::cereus_host_rows,
    input_count: usize,
    outputs: *const mlx_sys::cereus_host_rows,
    output_count: usize,
) {
    // SAFETY: the primitive gives the context it was made with, and arrays that live until this
    // returns: inputs that nobody writes and outputs that nobody else knows.
    unsafe {
        let inputs: Vec<Rows<'_>> = parts(inputs, input_count)
            .iter()
            .map(|rows| {
                let end = rows.count.checked_sub(1);
                let len = end.map_or(0, |last| last * rows.stride + rows.width);
                Rows::new(numbers(rows.data, len), rows.count, rows.width, rows.stride)
            })
            .collect();
        let mut outputs: Vec<&mut [f32]> = parts(outputs, output_count)
            .iter()
            .map(|rows| match rows.count * rows.width {
                0 => &mut [][..],
                len => std::slice::from_raw_parts_mut(rows.data, len),
            })
            .collect();
        (*context.cast_const().cast::<K>()).run(&inputs, &mut outputs);
    }
}

unsafe extern "C" fn free<K: Kernel>(context: *mut c_void) {
    // SAFETY: the primitive frees once what `apply` made of a box.
    drop(unsafe { Box::from_raw(context.cast::<K>()) });
}

/// # Safety
/// As for slices, but that a null pointer goes with a count of zero.
unsafe fn parts<'a>(
    data: *const mlx_sys::cereus_host_rows,
    count: usize,
) -> &'a [mlx_sys::cereus_host_rows] {
    match count {
        0 => &[],
        // SAFETY: the caller's promise.
        count => unsafe { std::slice::from_raw_parts(data, count) },
    }
}

/// # Safety
/// As for slices, but that a null pointer goes with a length of zero.
unsafe fn numbers<'a>(data: *const f32, len: usize) -> &'a [f32] {
    match len {
        0 => &[],
        // SAFETY: the caller's promise.
        len => unsafe { std::slice::from_raw_parts(data, len) },
    }
}

#[cfg(test)]
mod tests {
    use mlx_rs::ops::indexing::IndexOp;

    use super::*;

    #[test]
    fn a_kernel_sees_rows_of_a_part_and_its_outputs_go_on_in_the_graph() {
        let whole = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        let part = whole.add(Array::from_f32(1.0)).unwrap().index((.., 1..));
        let doubled = apply_one(
            &[&part],
            &[2, 2],
            |inputs: &[Rows<'_>], out: &mut [&mut [f32]]| {
                assert_eq!((inputs[0].count(), inputs[0].width()), (2, 2));
                let all = inputs[0].iter().flatten();
                out[0]
                    .iter_mut()
                    .zip(all)
                    .for_each(|(out, x)| *out = 2.0 * x);
            },
        )
        .unwrap();
        let sum = doubled.sum(None).unwrap();
        assert_eq!(sum.item_exact::<f32>(), 2.0 * (3.0 + 4.0 + 6.0 + 7.0));
    }

    #[test]
    fn rows_that_lie_otherwise_are_set_side_by_side_first() {
        let turned = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[1, 2, 3]).t();
        let copy = |inputs: &[Rows<'_>], out: &mut [&mut [f32]]| {
            out[0].copy_from_slice(&inputs[0].iter().flatten().copied().collect::<Vec<f32>>());
        };
        let made = apply_one(&[&turned], &[3, 2], copy).unwrap();
        assert_eq!(
            made.to_vec_exact::<f32>().unwrap(),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
    }

    #[test]
    fn other_types_are_refused() {
        let nothing = |_: &[Rows<'_>], _: &mut [&mut [f32]]| {};
        assert!(apply_one(&[&Array::from_int(1)], &[1], nothing).is_err());
    }
}
