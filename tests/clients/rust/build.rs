// The stubs, from proto/. Needs protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../../proto";
    tonic_prost_build::configure()
        .build_server(false)
        .compile_protos(
            &[format!("{proto}/rdrive/v1/reader.proto")],
            &[proto.to_string()],
        )?;
    Ok(())
}
