// SPDX-License-Identifier: Apache-2.0
//
// The memory policies of a space's threads (Linux `task_struct.mempolicy`).
//
// One entry for each thread index, reserved with the space and committed as it is touched, all zero at first.

import CRangeland

final class ThreadPolicies: @unchecked Sendable {
  /// Each is used by the thread that has the index.
  private let threads: UnsafeMutablePointer<OfThread>

  private struct OfThread {
    /// The kernel's number: an index is used again by another thread, which has no policy yet.
    var thread: Int32
    var policy: MemoryPolicy
  }

  private static var byteCount: Int { Int(RL_MAX_THREADS) * MemoryLayout<OfThread>.stride }

  /// No thread has one; `nil` without memory.
  static func make() -> ThreadPolicies? {
    guard let memory = rl_reserve(byteCount) else { return nil }
    return ThreadPolicies(memory)
  }

  private init(_ memory: UnsafeMutableRawPointer) {
    threads = memory.bindMemory(to: OfThread.self, capacity: Int(RL_MAX_THREADS))
  }

  deinit { _ = rl_release(threads, Self.byteCount) }

  /// The calling thread's.
  var own: MemoryPolicy {
    get {
      let own = threads + Int(rl_thread_index())
      return own.pointee.thread == rl_gettid() ? own.pointee.policy : .default
    }
    set { threads[Int(rl_thread_index())] = OfThread(thread: rl_gettid(), policy: newValue) }
  }
}
