// SPDX-License-Identifier: Apache-2.0
//
// Gives each thread of a run a processor of its own.
//
// Left alone, the scheduler sometimes puts two threads that wake each other on one processor, where they never meet: a
// cell with two threads then shows twice the time of one, and its figure says which way the coin fell.

import CRangeland
import Foundation

enum Processors {
  /// Those that this process may use, when the benchmark began.
  static let allowed: [UInt32] = {
    var set = rl_processors()
    guard rl_processors_get(&set) == 0 else { return [] }
    return withUnsafeBytes(of: &set) { bytes in
      (0..<UInt32(bytes.count) * 8).filter { bytes[Int($0 / 8)] >> UInt8($0 % 8) & 1 != 0 }
    }
  }()

  /// Keeps the calling thread on the processor with this place among the allowed ones. Without effect where the system
  /// refuses.
  static func keepThread(on place: Int) { _ = rl_processor_keep(allowed[place]) }

  /// How often the calling thread had to give its processor to another one.
  static var preemptions: Int { rl_preemptions() }

  /// How often the calling thread has waited for something else than a processor; `nil` where the system does not tell.
  static var sleeps: Int? {
    let status = try? String(contentsOfFile: "/proc/thread-self/status", encoding: .utf8)
    let line = status?.split(separator: "\n").first { $0.hasPrefix("voluntary_ctxt_switches:") }
    return line.flatMap { Int($0.split(separator: "\t").last ?? "") }
  }

  /// A processor's place for one of several threads that leave the last one to another.
  static func others(_ thread: Int) -> Int { thread % (allowed.count - 1) }
}
