// SPDX-License-Identifier: Apache-2.0
//
// Which lock stands behind the wrappers: chosen when an address space is made, never changed.

/// The lock of an address space.
///
/// Every operation asks for the same range and mode under every policy; the policy decides what that
/// request excludes. Semantics and results do not depend on it.
public enum LockPolicy: String, CaseIterable, Sendable, Codable {
  /// One reader/writer semaphore; the range is ignored. Linux until 2023 (`mmap_sem`).
  case semaphore
  /// The range lock, always asked for the whole space: what the lock itself costs.
  case wholeRange
  /// The range lock, asked for the operation's own range. The default.
  case ranged
  /// One semaphore plus a lock word in each VMA, which faults try first. Linux since 6.4.
  case perVMA
}
