// SPDX-License-Identifier: Apache-2.0
//
// The second live thread of every cell: it has used the lock once and is idle.
//
// The C library leaves out locked instructions while a process has one thread, and the range lock's whole-lock mode
// serves the time when one thread uses it: with nobody else there, both would look better than they are.

import Foundation

final class IdleThread: @unchecked Sendable {
  // `work` is handed over by the semaphores.
  private let given = DispatchSemaphore(value: 0)
  private let done = DispatchSemaphore(value: 0)
  private var work: (() -> Void)?

  init() {
    let thread = Thread { [self] in
      while true {
        given.wait()
        work?()
        done.signal()
      }
    }
    thread.start()
  }

  /// Runs `body` on the thread and returns when it is done.
  func run(_ body: @escaping () -> Void) {
    work = body
    given.signal()
    done.wait()
    work = nil
  }
}
