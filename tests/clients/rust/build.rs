// The stubs, from proto/ (RDRIVE_PROTO, where this folder lies elsewhere). Needs protoc.
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=RDRIVE_PROTO");
    let proto = std::env::var_os("RDRIVE_PROTO").map_or_else(|| PathBuf::from("../../../proto"), PathBuf::from);
    tonic_prost_build::configure()
        .build_server(false)
        .compile_protos(&[proto.join("rdrive/v1/reader.proto")], &[proto])?;
    Ok(())
}
