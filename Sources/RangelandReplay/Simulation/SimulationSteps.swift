// SPDX-License-Identifier: Apache-2.0
//
// The steps of all threads of a simulation, in memory of their own: ten million take 320 MB and are never copied.

import Glibc

/// Grows while a program is made; immutable afterwards.
final class SimulationSteps: @unchecked Sendable {
  // Sendable: changed by the one thread that makes it, before anybody else has it.
  private struct Buffer {
    var base: UnsafeMutablePointer<SimulationStep>?
    var count = 0
    var capacity = 0
  }

  private var buffers: [Buffer]

  init(threads: Int) { buffers = Array(repeating: Buffer(), count: threads) }

  deinit {
    for buffer in buffers { free(buffer.base) }
  }

  var threadCount: Int { buffers.count }

  /// Steps of all threads.
  var count: Int { buffers.reduce(0) { $0 + $1.count } }

  func count(_ thread: Int) -> Int { buffers[thread].count }

  func base(_ thread: Int) -> UnsafeMutablePointer<SimulationStep>? { buffers[thread].base }

  func append(_ step: SimulationStep, to thread: Int) {
    if buffers[thread].count == buffers[thread].capacity {
      let capacity = max(16, buffers[thread].capacity + buffers[thread].capacity / 2)
      // Of large blocks the kernel moves the pages.
      guard
        let memory = realloc(buffers[thread].base, capacity * MemoryLayout<SimulationStep>.stride)
      else { fatalError("no memory for \(capacity) steps of a simulation") }
      buffers[thread].base = memory.bindMemory(to: SimulationStep.self, capacity: capacity)
      buffers[thread].capacity = capacity
    }
    (buffers[thread].base.unsafelyUnwrapped + buffers[thread].count).initialize(to: step)
    buffers[thread].count += 1
  }

  /// The steps of a thread, for tests.
  func all(_ thread: Int) -> [SimulationStep] {
    Array(UnsafeBufferPointer(start: buffers[thread].base, count: buffers[thread].count))
  }
}
