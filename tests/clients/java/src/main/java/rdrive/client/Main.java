package rdrive.client;

import com.dynatrace.hash4j.hashing.Hashing;
import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import rdrive.v1.BatchReadHashedKeysRequest;
import rdrive.v1.DataStoreReaderServiceGrpc;
import rdrive.v1.DataStoreReaderServiceGrpc.DataStoreReaderServiceBlockingStub;
import rdrive.v1.ReadRequest;
import rdrive.v1.ReadResponse;

/** Reads a store by the contract and compares it with the table: Main ADDRESS TABLE. */
public final class Main {
  private static final int DEADLINE_S = 30; // of each call

  private final DataStoreReaderServiceBlockingStub reader;
  private final List<Row> rows;
  private final List<String> wrong = new ArrayList<>();

  private Main(ManagedChannel channel, List<Row> rows) {
    this.reader = DataStoreReaderServiceGrpc.newBlockingStub(channel);
    this.rows = rows;
  }

  private static long hash(byte[] key) {
    return Hashing.xxh3_64().hashBytesToLong(key);
  }

  private static String show(byte[] value) {
    return value == null ? "absent" : value.length + " bytes";
  }

  private DataStoreReaderServiceBlockingStub call() {
    return reader.withDeadlineAfter(DEADLINE_S, TimeUnit.SECONDS);
  }

  private byte[] read(byte[] key) {
    ReadResponse answer = call().read(ReadRequest.newBuilder().setKey(ByteString.copyFrom(key)).build());
    return answer.hasEntry() ? answer.getEntry().getPayload().toByteArray() : null;
  }

  private BatchStream readHashes() {
    BatchReadHashedKeysRequest.Builder request = BatchReadHashedKeysRequest.newBuilder();
    rows.forEach(row -> request.addKeyHashes(hash(row.key())));
    return BatchStream.read(call().batchReadHashedKeys(request.build()));
  }

  private void expect(Row row, String what, byte[] value) {
    if (!Arrays.equals(value, row.value())) {
      wrong.add(row.name() + ": " + what + " gives " + show(value) + ", not " + show(row.value()));
    }
  }

  /** Fills `wrong`; returns what was seen. */
  private String check() {
    for (Row row : rows) {
      if (hash(row.key()) != row.hash()) {
        wrong.add("%s: hashed to %016x, not %016x".formatted(row.name(), hash(row.key()), row.hash()));
      }
      expect(row, "Read", read(row.key()));
    }

    BatchStream stream = readHashes();
    if (stream.values().size() != rows.size()) {
      wrong.add("BatchReadHashedKeys answers " + stream.values().size() + " keys of " + rows.size());
    }
    for (int i = 0; i < Math.min(rows.size(), stream.values().size()); i++) {
      expect(rows.get(i), "BatchReadHashedKeys", stream.values().get(i));
    }
    return "%d keys hashed and read; one stream of %d messages, %d fragments among them"
        .formatted(rows.size(), stream.messages(), stream.fragments());
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 2) {
      System.err.println("usage: Main ADDRESS TABLE");
      System.exit(64);
    }
    List<Row> rows = Row.readTable(Path.of(arguments[1]));
    ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    Main client = new Main(channel, rows);
    try {
      String seen = client.check();
      client.wrong.forEach(System.err::println);
      if (client.wrong.isEmpty()) {
        System.out.println("ok: " + seen);
      }
    } finally {
      channel.shutdownNow().awaitTermination(DEADLINE_S, TimeUnit.SECONDS);
    }
    System.exit(client.wrong.isEmpty() ? 0 : 1);
  }
}
