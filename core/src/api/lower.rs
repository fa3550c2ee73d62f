//! Writes the body that is sealed to a provider.

use super::json::quote;
use super::request::Request;

/// Members written anew below.
const REWRITTEN: [&str; 8] = [
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "min_tokens",
    "model",
    "stop",
    "stream",
    "stream_options",
];

/// Members that concern the coordinator or the consumer's account, never a provider.
const WITHHELD: [&str; 12] = [
    "metadata",
    "metadata_details",
    "models",
    "plugins",
    "prompt_cache_key",
    "provider",
    "route",
    "routing",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// Members with these prefixes are the coordinators' own.
const RESERVED: [&str; 2] = ["_cereus_", "_darkbloom_"];

impl Request<'_> {
    /// Appends the request as a provider gets it: the build to run, always streamed, always with an
    /// output bound, without what a provider has no business to know. Members that nobody here knows
    /// pass through unchanged.
    pub fn lower(&self, build: &str, output_tokens_max: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"model\":");
        quote(build, out);
        out.extend_from_slice(
            b",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":",
        );
        out.extend_from_slice(output_tokens_max.to_string().as_bytes());
        let output_tokens_min = self.output_tokens_min.min(output_tokens_max);
        if output_tokens_min > 0 {
            out.extend_from_slice(b",\"min_tokens\":");
            out.extend_from_slice(output_tokens_min.to_string().as_bytes());
        }
        if !self.stops.is_empty() {
            out.extend_from_slice(b",\"stop\":");
            serde_json::to_writer(&mut *out, &self.stops).expect("a vector takes all bytes");
        }
        for (name, value) in &self.members {
            let is_kept = !REWRITTEN.contains(&&**name)
                && !WITHHELD.contains(&&**name)
                && !RESERVED.iter().any(|prefix| name.starts_with(prefix));
            if is_kept {
                out.push(b',');
                quote(name, out);
                out.push(b':');
                out.extend_from_slice(value.get().as_bytes());
            }
        }
        out.push(b'}');
    }
}
