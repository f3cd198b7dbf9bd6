import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;

/**
 * A batch job in the shape of ours, with naps for work: numbers, spread, a file of each.
 *
 * <p>A file appears whole, under its number, and holds the process that wrote it.
 */
public class Naps {
  public static void main(String[] words) throws Exception {
    var environment = StreamExecutionEnvironment.getExecutionEnvironment();
    environment.setRuntimeMode(RuntimeExecutionMode.BATCH);
    environment
        .fromSequence(1, Long.parseLong(words[1]))
        .rebalance()
        .map(new Nap(words[0]))
        .sinkTo(new DiscardingSink<>());
    environment.execute("naps");
  }

  private record Nap(String folder) implements MapFunction<Long, Long> {
    @Override
    public Long map(Long number) throws Exception {
      Thread.sleep(200);
      var written = Files.createTempFile(Path.of(folder), ".", "");
      Files.writeString(written, Long.toString(ProcessHandle.current().pid()));
      Files.move(written, Path.of(folder, Long.toString(number)), StandardCopyOption.ATOMIC_MOVE);
      return number;
    }
  }
}
