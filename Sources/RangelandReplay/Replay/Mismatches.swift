// SPDX-License-Identifier: Apache-2.0
//
// Where a replay came to something else than the recording.

import RangeLocks

/// Collects mismatches from all threads of a run: the number, and the first few in words.
final class Mismatches: @unchecked Sendable {
  // Sendable: everything below is guarded by the latch, which lives behind a pointer because it must not move.
  private let latch: UnsafeMutablePointer<Latch>
  private var total = 0
  private var texts: [String] = []
  private var firstError: ReplayError?

  static let exampleLimit = 8

  init() {
    latch = .allocate(capacity: 1)
    latch.initialize(to: Latch())
  }

  deinit {
    latch.deinitialize(count: 1)
    latch.deallocate()
  }

  func note(_ step: ReplayStep, _ outcome: ReplayOutcome, thread: Int) {
    note(
      "thread \(thread): \(step.action) of \(hex(step.start))-\(hex(step.end)) came to \(outcome), recorded was "
        + "\(step.expected)")
  }

  func note(_ text: String) {
    latch.pointee.lock()
    total += 1
    if texts.count < Self.exampleLimit { texts.append(text) }
    latch.pointee.unlock()
  }

  func fail(_ error: ReplayError) {
    latch.pointee.lock()
    firstError = firstError ?? error
    latch.pointee.unlock()
  }

  var count: Int {
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    return total
  }

  var examples: [String] {
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    return texts
  }

  var error: ReplayError? {
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    return firstError
  }
}
