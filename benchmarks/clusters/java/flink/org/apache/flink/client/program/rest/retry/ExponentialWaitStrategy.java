package org.apache.flink.client.program.rest.retry;

/**
 * In place of Flink's, which looks after a job less and less often, in the end every two seconds: so late would each
 * job's end be seen. Here it is at most a tenth of one.
 */
public class ExponentialWaitStrategy implements WaitStrategy {
  private static final long MOST_MILLISECONDS = 100;
  private final long first;

  public ExponentialWaitStrategy(long first, long unused) {
    this.first = first;
  }

  @Override
  public long sleepTime(long attempt) {
    return Math.min(first << Math.min(attempt, 30), MOST_MILLISECONDS);
  }
}
