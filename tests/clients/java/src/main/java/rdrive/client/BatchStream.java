package rdrive.client;

import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import rdrive.v1.BatchReadHashedKeysResponse;
import rdrive.v1.BatchReadItem;
import rdrive.v1.PayloadFragment;

/** What one batch stream brings: values by index, null for an absent key. */
final class BatchStream {
  private final List<byte[]> values = new ArrayList<>();
  private final ByteArrayOutputStream parts = new ByteArrayOutputStream(); // of the value whose fragments are arriving
  private int messages;
  private int fragments;

  static BatchStream read(Iterator<BatchReadHashedKeysResponse> answers) {
    BatchStream stream = new BatchStream();
    while (answers.hasNext()) {
      stream.messages++;
      answers.next().getItemsList().forEach(stream::add);
    }
    if (stream.parts.size() != 0) {
      throw new IllegalStateException("the stream ends in the middle of a value");
    }
    return stream;
  }

  private void add(BatchReadItem item) {
    if (item.getIndex() != values.size()) {
      throw new IllegalStateException("index " + item.getIndex() + " comes where " + values.size() + " is due");
    }
    switch (item.getOutcomeCase()) {
      case ABSENT -> values.add(null);
      case ENTRY -> values.add(item.getEntry().getPayload().toByteArray());
      case FRAGMENT -> add(item.getFragment());
      case ERROR -> throw new IllegalStateException(
          "item " + item.getIndex() + ": " + item.getError().getReason() + ": " + item.getError().getMessage());
      case OUTCOME_NOT_SET -> throw new IllegalStateException(
          "item " + item.getIndex() + ": an outcome that this client doesn't know");
    }
  }

  private void add(PayloadFragment fragment) {
    if (fragment.getPayloadOffset() != parts.size()) {
      throw new IllegalStateException(
          "a fragment begins at " + fragment.getPayloadOffset() + ", not " + parts.size());
    }
    fragments++;
    parts.writeBytes(fragment.getData().toByteArray());
    if (parts.size() == fragment.getPayloadSize()) {
      values.add(parts.toByteArray());
      parts.reset();
    }
  }

  List<byte[]> values() {
    return values;
  }

  int messages() {
    return messages;
  }

  int fragments() {
    return fragments;
  }
}
