// SPDX-License-Identifier: Apache-2.0
//
// Threads for scripts that are run at the same time.
//
// Guarantee: all bodies start after every thread exists, and have returned when the call returns. When a thread
//   cannot be made none runs its body.

import CRangeland
import Glibc
import Synchronization

/// Runs `body(0) ... body(count - 1)`, each on a thread of its own.
func runTogether(
  _ count: Int, _ body: @escaping @Sendable (Int) -> Void
) throws(VerifyError) {
  let gate = Gate()
  var threads: [pthread_t] = []
  var failure: Int32 = 0
  for index in 0..<count where failure == 0 {
    let start = ThreadStart {
      if gate.pass() { body(index) }
    }
    let argument = Unmanaged.passRetained(start)
    var thread = pthread_t()
    failure = pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<ThreadStart>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, argument.toOpaque())
    if failure == 0 { threads.append(thread) } else { argument.release() }
  }
  gate.open(running: failure == 0)
  for thread in threads { pthread_join(thread, nil) }
  if failure != 0 { throw VerifyError("a thread cannot be made: errno \(failure)") }
}

private final class ThreadStart: Sendable {
  let run: @Sendable () -> Void
  init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// Where threads wait until all of them exist.
private final class Gate: Sendable {
  /// 0 = closed, 1 = open, 2 = nobody is to run.
  private let state = Atomic<Int>(0)

  func open(running: Bool) { state.store(running ? 1 : 2, ordering: .releasing) }

  func pass() -> Bool {
    while true {
      let now = state.load(ordering: .acquiring)
      if now != 0 { return now == 1 }
      rl_yield()
    }
  }
}
