package rdrive.client;

import com.google.gson.Gson;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.List;

/** A key, and what the store holds under it. The value is null where the key is absent. */
record Row(String name, byte[] key, long hash, byte[] value) {

  /** Bytes, as the table writes them. */
  private record Written(String hex, Integer times) {
    byte[] plain() {
      return HexFormat.of().parseHex(hex.repeat(times == null ? 1 : times));
    }
  }

  private record Line(String name, Written key, String hash, Written value) {
    Row row() {
      return new Row(name, key.plain(), Long.parseUnsignedLong(hash, 16), value == null ? null : value.plain());
    }
  }

  private record Table(List<Line> keys) {}

  static List<Row> readTable(Path path) throws IOException {
    Table table = new Gson().fromJson(Files.readString(path, StandardCharsets.UTF_8), Table.class);
    return table.keys().stream().map(Line::row).toList();
  }
}
