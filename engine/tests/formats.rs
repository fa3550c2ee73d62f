//! Files in every form that the engine reads: numbers of a few bits, floats of sixteen, positions that
//! turn in other ways. What a network makes of them is held against double precision.
#![cfg(feature = "mlx")]

mod support;

use std::collections::BTreeMap;

use cereus_engine::kv::PageId;
use cereus_engine::model::{
    Layout, Load, Model, ModelError, Output, PagedCache, PagedStep, QuantisedMatrices, RowCache,
    RowStep,
};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Dtype};
use support::truth::Truth;
use support::{FAMILIES, LLAMA, QWEN2, QWEN3, QWEN35, Stream, arrays, config, write_folder};

const SEED: u64 = 9;

fn tokens(count: usize) -> Vec<u32> {
    let mut stream = Stream(SEED);
    (0..count).map(|_| stream.below(50)).collect()
}

/// Logits after all tokens, over pages.
fn said(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let group_count = model.config().store_groups(4).len();
    let mut cache = PagedCache::new(model);
    for group in 0..group_count {
        cache.fit(group, PAGES, PAGES).unwrap();
    }
    let table: Vec<PageId> = (1..PAGES).map(PageId).collect();
    let tables = vec![table.as_slice(); group_count];
    let rows = [PagedStep {
        slot: 0,
        start: 0,
        tokens,
        tables: &tables,
        output: Output::Logits,
    }];
    let logits = model.step_paged(&mut cache, &rows).unwrap().unwrap();
    logits.index(0).to_vec_exact::<f32>().unwrap()
}

const PAGES: u32 = 6;

fn loads() -> [Load; 3] {
    let load = |layout, quantised| Load { layout, quantised };
    [
        load(Layout::Joined, QuantisedMatrices::Kept),
        load(Layout::Joined, QuantisedMatrices::Unpacked),
        load(Layout::Packed, QuantisedMatrices::Unpacked),
    ]
}

/// A folder of these tensors says what a network of `floats` says in double precision.
fn check(json: &str, stored: &BTreeMap<String, Array>, floats: &BTreeMap<String, Array>) {
    let tokens = tokens(60);
    let truth = Truth::of(&config(json), floats, &tokens);
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), json, stored);
    for load in loads() {
        let model = Model::load_as(folder.path(), load).unwrap();
        truth.check(
            tokens.len(),
            &said(&model, &tokens),
            &format!("{load:?} {json}"),
        );
    }
}

#[test]
fn positions_turn_as_the_files_say() {
    let with = |json: &str, extra: &str| {
        let json = json.replacen('{', &format!("{{{extra},"), 1);
        json.replace("\"rope_scaling\"", "\"other\"")
            .replace("\"NEW\"", "\"rope_scaling\"")
    };
    let table = [
        with(LLAMA, r#""rope_traditional":true"#),
        with(QWEN2, r#""rope_traditional":true"#),
        with(
            QWEN2,
            r#""max_position_embeddings":512,"NEW":{"rope_type":"dynamic","factor":4.0}"#,
        ),
        with(
            LLAMA,
            r#""NEW":{"rope_type":"longrope","short_factor":[1.0,1.0,1.0,1.0],
                "long_factor":[1.0,2.0,5.5,16.0],"original_max_position_embeddings":32}"#,
        ),
        with(
            QWEN3,
            r#""NEW":{"rope_type":"yarn","factor":8.0,"truncate":false,"attention_factor":1.25,
                "beta_fast":4.0,"original_max_position_embeddings":64}"#,
        ),
    ];
    for json in table {
        let floats = arrays(&config(&json), SEED);
        check(&json, &floats, &floats);
    }
}

/// Wrong from the first token on would be seen above; that the keys matter at all is seen here.
#[test]
fn each_way_of_turning_gives_other_logits() {
    let json = |extra: &str| QWEN2.replacen('{', &format!("{{{extra}"), 1);
    let table = [
        "",
        r#""rope_traditional":true,"#,
        r#""rope_theta":10000.0,"#,
        r#""rope_scaling":{"type":"yarn","factor":8.0},"#,
        r#""rope_scaling":{"type":"yarn","factor":8.0,"truncate":false},"#,
        r#""rope_scaling":{"type":"yarn","factor":8.0,"attention_factor":1.0},"#,
    ];
    let logits = table.map(|extra| {
        let config = config(&json(extra));
        let truth = Truth::of(&config, &arrays(&config, SEED), &tokens(60));
        (
            truth.logits.into_iter().next_back().unwrap(),
            truth.tolerance,
        )
    });
    for (ix, (left, tolerance)) in logits.iter().enumerate() {
        for (right, _) in &logits[..ix] {
            let off = left.iter().zip(right).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0, f64::max);
            assert!(off > 10.0 * tolerance, "{}: {off:e}", table[ix]);
        }
    }
}

/// How the numbers of a matrix stand in the files.
#[derive(Clone, Copy, Debug)]
enum Form {
    Affine { bits: usize, group: usize },
    Mxfp4,
    Mxfp8,
    Nvfp4,
}

const FORMS: [Form; 10] = [
    Form::Affine { bits: 2, group: 32 },
    Form::Affine { bits: 3, group: 64 },
    Form::Affine { bits: 4, group: 32 },
    Form::Affine { bits: 5, group: 64 },
    Form::Affine { bits: 6, group: 32 },
    Form::Affine { bits: 8, group: 64 },
    Form::Affine { bits: 5, group: 32 },
    Form::Mxfp4,
    Form::Mxfp8,
    Form::Nvfp4,
];

impl Form {
    fn bits(self) -> usize {
        match self {
            Self::Affine { bits, .. } => bits,
            Self::Mxfp4 | Self::Nvfp4 => 4,
            Self::Mxfp8 => 8,
        }
    }

    fn group(self) -> usize {
        match self {
            Self::Affine { group, .. } => group,
            Self::Mxfp4 | Self::Mxfp8 => 32,
            Self::Nvfp4 => 16,
        }
    }

    /// The number that a code stands for, before its scale.
    fn number(self, code: u32) -> f64 {
        match self {
            Self::Affine { .. } => f64::from(code),
            Self::Mxfp4 | Self::Nvfp4 => {
                const TABLE: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
                let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
                sign * TABLE[(code & 7) as usize]
            }
            Self::Mxfp8 => eight_bit_float(code),
        }
    }
}

/// One sign, four bits of exponent, three of mantissa.
fn eight_bit_float(code: u32) -> f64 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let mantissa = f64::from(code & 7) / 8.0;
    match (code >> 3 & 15).cast_signed() {
        0 => sign * mantissa * 2_f64.powi(-6),
        exponent => sign * (1.0 + mantissa) * 2_f64.powi(exponent - 7),
    }
}

/// A matrix of random codes: the tensors of the files, and the floats that they stand for.
struct Packed {
    weight: Array,
    scales: Array,
    offsets: Option<Array>,
    floats: Array,
}

/// A wide matrix's numbers make sums of about the same size as a narrow one's.
fn packed(form: Form, rows: usize, columns: usize, stream: &mut Stream) -> Packed {
    let (bits, group) = (form.bits(), form.group());
    let mut words = vec![0_u32; rows * columns * bits / 32];
    let mut floats = Vec::with_capacity(rows * columns);
    let (mut scales, mut scale_codes, mut offsets) = (vec![], vec![], vec![]);
    for place in 0..rows * columns {
        let end = 1_u32 << bits;
        let code = match form {
            Form::Affine { .. } | Form::Mxfp4 | Form::Nvfp4 => stream.below(end),
            // Less than two: half of all codes, the greatest of which are no numbers, go further.
            Form::Mxfp8 => stream.below(end) & 0xbf,
        };
        // Bit after bit along the row, the least of a code first.
        for bit in 0..bits {
            let at = place * bits + bit;
            words[at / 32] |= (code >> bit & 1) << (at % 32);
        }
        if place % group == 0 {
            let size = 2.0 * (1.0 + 0.5 * f64::from(stream.signed())) / (columns as f64).sqrt();
            match form {
                Form::Affine { .. } => {
                    let step = (size / f64::from(end)) as f32;
                    scales.push(step);
                    offsets.push(-step * (end / 2) as f32);
                }
                Form::Mxfp4 | Form::Mxfp8 => {
                    // A power of two, by its exponent alone.
                    scale_codes.push(123_u8 + u8::try_from(stream.below(2)).unwrap());
                }
                Form::Nvfp4 => scale_codes.push(0x15 + u8::try_from(stream.below(8)).unwrap()),
            }
        }
        floats.push(match form {
            Form::Affine { .. } => {
                let (scale, offset) = (scales[scales.len() - 1], offsets[offsets.len() - 1]);
                f64::from(scale) * f64::from(code) + f64::from(offset)
            }
            Form::Mxfp4 | Form::Mxfp8 => {
                let exponent = i32::from(scale_codes[scale_codes.len() - 1]) - 127;
                form.number(code) * 2_f64.powi(exponent)
            }
            Form::Nvfp4 => {
                let scale = scale_codes[scale_codes.len() - 1];
                form.number(code) * eight_bit_float(scale.into())
            }
        } as f32);
    }
    let size = |size: usize| i32::try_from(size).unwrap();
    let by_group = [size(rows), size(columns / group)];
    let of_floats = |floats: &[f32]| Array::from_slice(floats, &by_group);
    Packed {
        weight: Array::from_slice(&words, &[size(rows), size(columns * bits / 32)]),
        scales: match form {
            Form::Affine { .. } => of_floats(&scales),
            Form::Mxfp4 | Form::Mxfp8 | Form::Nvfp4 => Array::from_slice(&scale_codes, &by_group),
        },
        offsets: (!offsets.is_empty()).then(|| of_floats(&offsets)),
        floats: Array::from_slice(&floats, &[size(rows), size(columns)]),
    }
}

/// A Qwen3 whose every width takes groups of 64.
fn wide() -> String {
    QWEN3
        .replace("\"hidden_size\": 48", "\"hidden_size\": 64")
        .replace("\"intermediate_size\": 96", "\"intermediate_size\": 128")
        .replacen('{', r#"{"quantization":{"bits":4,"group_size":64},"#, 1)
}

/// The files' tensors, matrices packed by the form that `form` gives for their number, and floats.
fn quantised(json: &str, form: impl Fn(usize) -> Form) -> [BTreeMap<String, Array>; 2] {
    let mut floats = arrays(&config(json), SEED);
    let mut stored = floats.clone();
    let mut stream = Stream(SEED);
    let is_matrix = |array: &Array| array.ndim() == 2;
    let matrices = floats.iter_mut().filter(|(_, array)| is_matrix(array));
    for (ix, (name, array)) in matrices.enumerate() {
        let size = |axis| usize::try_from(array.dim(axis)).unwrap();
        let packed = packed(form(ix), size(0), size(1), &mut stream);
        let stem = name.strip_suffix(".weight").unwrap();
        stored.insert(name.clone(), packed.weight);
        stored.insert(format!("{stem}.scales"), packed.scales);
        if let Some(offsets) = packed.offsets {
            stored.insert(format!("{stem}.biases"), offsets);
        }
        *array = packed.floats;
    }
    [stored, floats]
}

#[test]
fn matrices_of_a_few_bits_are_the_numbers_that_they_stand_for() {
    let json = wide();
    for form in FORMS {
        let [stored, floats] = quantised(&json, |_| form);
        check(&json, &stored, &floats);
    }
}

#[test]
fn each_matrix_may_have_bits_of_its_own() {
    let json = wide();
    let [stored, floats] = quantised(&json, |ix| FORMS[ix % FORMS.len()]);
    check(&json, &stored, &floats);
}

fn refusal(json: &str, stored: &BTreeMap<String, Array>) -> String {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), json, stored);
    Model::load(folder.path()).unwrap_err().to_string()
}

#[test]
fn what_is_refused_names_the_tensor_its_bits_and_its_mode() {
    let json = wide();
    let name = "model.layers.1.mlp.down_proj";
    let [mut stored, _] = quantised(&json, |_| FORMS[0]);
    let seven = Array::from_slice(&[0_u32; 64 * 28], &[64, 28]);
    stored.insert(format!("{name}.weight"), seven);
    let error = refusal(&json, &stored);
    assert!(
        error.contains(&format!(
            "tensor {name}.weight of 7 bits in groups of 32, mode affine"
        )),
        "{error}"
    );

    let [mut stored, _] = quantised(&json, |_| Form::Mxfp8);
    let coarse = Array::from_slice(&[0_u8; 64 * 2], &[64, 2]);
    stored.insert(format!("{name}.scales"), coarse);
    let error = refusal(&json, &stored);
    assert!(
        error.contains(&format!(
            "tensor {name}.weight of 8-bit floats in groups of 64"
        )),
        "{error}"
    );

    let [stored, _] = quantised(&json, |_| FORMS[0]);
    let other = json.replace("\"bits\":4", "\"bits\":4,\"mode\":\"nf4\"");
    let error = refusal(&other, &stored);
    assert!(
        error.contains("tensor model.embed_tokens.weight of 4 bits in quantization mode nf4"),
        "{error}"
    );
}

#[test]
fn a_part_that_guesses_ahead_is_left_out_wherever_it_stands() {
    let mut floats = arrays(&config(QWEN35), SEED);
    let plain = floats.clone();
    for name in [
        "language_model.mtp.fc.weight",
        "model.language_model.mtp.norm.weight",
        "mtp.x",
    ] {
        floats.insert(name.to_owned(), Array::from_slice(&[0.0_f32; 4], &[2, 2]));
    }
    check(QWEN35, &floats, &plain);
    let unknown = "language_model.model.other.weight".to_owned();
    floats.insert(unknown, Array::from_slice(&[0.0_f32; 4], &[2, 2]));
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), QWEN35, &floats);
    let error = Model::load(folder.path()).unwrap_err();
    assert!(matches!(error, ModelError::TensorUnknown { .. }), "{error}");
}

/// What comes out of the last layer has the type that went into the first, or the state between them
/// was widened; keys, values and states take the bytes that the books count.
#[test]
fn sixteen_bit_models_stay_so_from_the_first_layer_to_the_cache() {
    for json in FAMILIES {
        for dtype in [Dtype::Bfloat16, Dtype::Float16] {
            let config = config(json);
            let wide = arrays(&config, SEED);
            let narrow = wide.iter().map(|(name, array)| {
                let array = array.as_dtype(dtype).unwrap();
                (name.clone(), array)
            });
            let model = Model::from_arrays(&config, narrow.collect()).unwrap();
            let tokens = tokens(23);
            let batch = Array::from_slice(&tokens, &[1, 23]);
            let logits = model.logits(&batch).unwrap();
            assert_eq!(logits.dtype(), dtype, "the state in {json}");

            let is_matrix = |array: &Array| array.ndim() == 4 && array.dtype() == Dtype::Float32;
            let recurrent = config.state_bytes(2) > 0;
            let mut row = RowCache::new(&config);
            for tokens in [&tokens[..20], &tokens[20..21]] {
                let cache = &mut row;
                let output = Output::Logits;
                let mut rows = [RowStep {
                    cache,
                    tokens,
                    output,
                }];
                model.step(&mut rows).unwrap();
                for array in row.tensors() {
                    let is_right = array.dtype() == dtype || (recurrent && is_matrix(array));
                    assert!(is_right, "{:?} in the cache of {json}", array.dtype());
                }
            }
            assert_eq!(
                paged_bytes(&model, &tokens),
                granted_bytes(&model),
                "{json}"
            );
        }
    }
}

/// What pages and one row's states take.
fn paged_bytes(model: &Model, tokens: &[u32]) -> u64 {
    let group_count = model.config().store_groups(2).len();
    let mut cache = PagedCache::new(model);
    for group in 0..group_count {
        cache.fit(group, PAGES, PAGES).unwrap();
    }
    let table: Vec<PageId> = (1..PAGES).map(PageId).collect();
    let tables = vec![table.as_slice(); group_count];
    let rows = [PagedStep {
        slot: 0,
        start: 0,
        tokens,
        tables: &tables,
        output: Output::Nothing,
    }];
    model.step_paged(&mut cache, &rows).unwrap();
    let bytes = cache.tensors(0).map(|array| array.nbytes() as u64);
    bytes.sum()
}

/// The same by the books.
fn granted_bytes(model: &Model) -> u64 {
    let layout = model.kv_layout(0);
    let pages = layout.groups.iter().map(|group| group.bytes_per_page);
    pages.sum::<u64>() * u64::from(PAGES) + layout.state_bytes
}
