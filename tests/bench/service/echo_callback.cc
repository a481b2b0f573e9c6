// The same work as users of gRPC's C++ library write it: its callback interface and generated messages. The answer is
// always the same, whatever key was asked for.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <grpcpp/grpcpp.h>
#include <rdrive/v1/reader.grpc.pb.h>
#include <string>

namespace {

class Service final : public rdrive::v1::DataStoreReaderService::CallbackService {
public:
    explicit Service(size_t payload_bytes)
    {
        rdrive::v1::Entry *entry = answer_.mutable_entry();
        entry->set_payload(std::string(payload_bytes, 'x'));
        entry->mutable_metadata()->set_key_hash(0x0123456789abcdef);
        entry->mutable_metadata()->set_prev_offset(64000000);
        entry->mutable_metadata()->set_checksum(0x12345678);
    }

    grpc::ServerUnaryReactor *Read(grpc::CallbackServerContext *context, const rdrive::v1::ReadRequest *,
                                   rdrive::v1::ReadResponse *response) override
    {
        *response = answer_;
        grpc::ServerUnaryReactor *reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }

    size_t answer_bytes() const { return answer_.ByteSizeLong(); }

private:
    rdrive::v1::ReadResponse answer_;
};

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::fputs("usage: bench_service_echo_callback PAYLOAD_BYTES\n", stderr);
        return 64;
    }
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, nullptr);
    Service service(std::strtoul(argv[1], nullptr, 10));
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (server == nullptr)
        return 2;
    std::fprintf(stderr, "listening address=127.0.0.1:%d answer_bytes=%zu\n", port, service.answer_bytes());
    int signal = 0;
    sigwait(&ends, &signal);
    server->Shutdown();
    return 0;
}
