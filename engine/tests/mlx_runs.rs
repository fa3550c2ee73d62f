//! MLX itself, as linked: every primitive that the models use answers on this machine.
#![cfg(feature = "mlx")]

use mlx_rs::ops::softmax_axis;
use mlx_rs::{Array, fast};

#[test]
fn a_matrix_product_is_what_the_definition_says() {
    let left = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0], &[2, 2]);
    let right = Array::from_slice(&[5.0_f32, 6.0, 7.0, 8.0], &[2, 2]);
    let product = left.matmul(&right).unwrap();
    assert_eq!(
        product.to_vec_exact::<f32>().unwrap(),
        [19.0, 22.0, 43.0, 50.0]
    );
}

#[test]
fn attention_over_one_key_returns_its_value() {
    let query = Array::from_slice(&[0.3_f32, -0.2], &[1, 1, 1, 2]);
    let key = Array::from_slice(&[1.0_f32, 2.0], &[1, 1, 1, 2]);
    let value = Array::from_slice(&[0.5_f32, 4.0], &[1, 1, 1, 2]);
    let seen = fast::scaled_dot_product_attention(&query, &key, &value, 1.0, None, None).unwrap();
    assert_eq!(seen.to_vec_exact::<f32>().unwrap(), [0.5, 4.0]);
}

#[test]
fn softmax_sums_to_one() {
    let logits = Array::from_slice(&[1.0_f32, 2.0, 3.0], &[1, 3]);
    let shares = softmax_axis(&logits, -1, true).unwrap();
    let sum: f32 = shares.to_vec_exact::<f32>().unwrap().iter().sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
}
