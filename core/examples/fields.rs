//! Writes `docs/fields.md`: what is done with each field of a request.

fn main() {
    print!("{}", cereus_core::api::fields_page());
}
