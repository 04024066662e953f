// SPDX-License-Identifier: Apache-2.0
//
// A load for a JVM: many short-lived threads, 8 at a time. Usage: java Work TASKS
import java.util.HashMap;
import java.util.concurrent.Semaphore;

public class Work {
  static int work(int seed) {
    HashMap<Integer, String> map = new HashMap<>();
    for (int i = 0; i < 400; i++) map.put(i * 31 + seed, "value " + i);
    byte[] bytes = new byte[64 << 10];
    for (int i = 0; i < bytes.length; i += 1024) bytes[i] = (byte) (i + seed);
    int sum = 0;
    for (String value : map.values()) sum += value.hashCode();
    return sum + bytes[seed % bytes.length];
  }

  public static void main(String[] arguments) throws Exception {
    int tasks = Integer.parseInt(arguments[0]);
    Semaphore room = new Semaphore(8);
    for (int i = 0; i < tasks; i++) {
      int seed = i;
      room.acquire();
      new Thread(() -> {
        try { if (work(seed) == 42) System.out.println(seed); } finally { room.release(); }
      }).start();
    }
    room.acquire(8);
  }
}
