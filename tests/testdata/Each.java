import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;

/**
 * A batch job in the shape of ours, in Flink's own API: numbers, spread, a command for each.
 *
 * <p>Words: how many numbers, then the command, which is given one of them as its last word.
 */
public class Each {
  public static void main(String[] words) throws Exception {
    var environment = StreamExecutionEnvironment.getExecutionEnvironment();
    environment.setRuntimeMode(RuntimeExecutionMode.BATCH);
    environment
        .fromSequence(1, Long.parseLong(words[0]))
        .rebalance()
        .map(new Run(List.of(Arrays.copyOfRange(words, 1, words.length))))
        .sinkTo(new DiscardingSink<>());
    environment.execute("each");
  }

  private record Run(List<String> command) implements MapFunction<Long, Long> {
    @Override
    public Long map(Long number) throws Exception {
      var words = new ArrayList<>(command);
      words.add(Long.toString(number));
      int code = new ProcessBuilder(words).inheritIO().start().waitFor();
      if (code != 0) {
        throw new RuntimeException(words + " ended with " + code);
      }
      return number;
    }
  }
}
