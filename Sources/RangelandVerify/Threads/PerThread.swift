// SPDX-License-Identifier: Apache-2.0
//
// A value for each thread of a run.
//
// Guarantee: no two threads touch one value, as long as each uses its own number; who started the threads may look
//   before they begin and after they have ended.

/// Values by thread number.
final class PerThread<Value>: @unchecked Sendable {
  // Sendable: see the file's head. A pointer, because threads that change elements of one array would race.
  private let values: UnsafeMutableBufferPointer<Value>

  init(_ threads: Int, _ value: Value) {
    values = .allocate(capacity: threads)
    values.initialize(repeating: value)
  }

  subscript(thread: Int) -> Value {
    get { values[thread] }
    set { values[thread] = newValue }
  }

  var all: [Value] { Array(values) }

  deinit {
    values.deinitialize()
    values.deallocate()
  }
}
