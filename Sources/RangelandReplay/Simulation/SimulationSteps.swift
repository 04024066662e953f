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
    /// The number of each step's call chain plus 1, or 0; only where chains are recorded.
    var chains: [UInt32] = []
  }

  private var buffers: [Buffer]
  private let hasChains: Bool

  init(threads: Int, hasChains: Bool = false) {
    buffers = Array(repeating: Buffer(), count: threads)
    self.hasChains = hasChains
  }

  deinit {
    for buffer in buffers { free(buffer.base) }
  }

  var threadCount: Int { buffers.count }

  /// Steps of all threads.
  var count: Int { buffers.reduce(0) { $0 + $1.count } }

  func count(_ thread: Int) -> Int { buffers[thread].count }

  /// The call chain of the step at `step`, of this thread; nil: none is recorded.
  func chain(_ thread: Int, at step: UnsafePointer<SimulationStep>) -> Int? {
    guard hasChains, let base = buffers[thread].base else { return nil }
    let word = buffers[thread].chains[step - UnsafePointer(base)]
    return word == 0 ? nil : Int(word) - 1
  }

  func base(_ thread: Int) -> UnsafeMutablePointer<SimulationStep>? { buffers[thread].base }

  func append(_ step: SimulationStep, chain: Int? = nil, to thread: Int) {
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
    if hasChains { buffers[thread].chains.append(chain.map { UInt32($0 + 1) } ?? 0) }
  }

  /// The steps of a thread, for tests.
  func all(_ thread: Int) -> [SimulationStep] {
    Array(UnsafeBufferPointer(start: buffers[thread].base, count: buffers[thread].count))
  }
}
