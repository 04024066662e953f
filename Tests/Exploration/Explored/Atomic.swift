// SPDX-License-Identifier: Apache-2.0
//
// `Atomic` as the explored copy of the lock sees it: every operation is a point where the scheduler may switch.
//
// A declaration of the module itself hides an imported one of the same name, so the copied sources use this
// type in the place of the one of `Synchronization` without a change. The layout is the same: the value is kept in
// an imported `Atomic`, which also gives it an address while it is borrowed.

import CExplorer
import Synchronization

/// The order of an operation as the engine wants it.
@inlinable
func order(_ order: AtomicLoadOrdering) -> UInt32 {
  order == .relaxed
    ? 0 : order == .acquiring ? UInt32(RX_ACQUIRES) : UInt32(RX_ACQUIRES | RX_SEQUENTIAL)
}

@inlinable
func order(_ order: AtomicStoreOrdering) -> UInt32 {
  order == .relaxed
    ? 0 : order == .releasing ? UInt32(RX_RELEASES) : UInt32(RX_RELEASES | RX_SEQUENTIAL)
}

@inlinable
func order(_ order: AtomicUpdateOrdering) -> UInt32 {
  switch order {
  case .relaxed: 0
  case .acquiring: UInt32(RX_ACQUIRES)
  case .releasing: UInt32(RX_RELEASES)
  case .acquiringAndReleasing: UInt32(RX_ACQUIRES | RX_RELEASES)
  default: UInt32(RX_ACQUIRES | RX_RELEASES | RX_SEQUENTIAL)
  }
}

/// Hides `Synchronization.Atomic` in this module.
public struct Atomic<Value: AtomicRepresentable>: ~Copyable {
  @usableFromInline let storage: Synchronization.Atomic<Value>

  @inlinable
  public init(_ value: consuming Value) { storage = Synchronization.Atomic(value) }

  @inlinable
  static var size: UInt32 { UInt32(MemoryLayout<Value.AtomicRepresentation>.size) }

  @inlinable
  borrowing func address() -> UnsafeMutableRawPointer {
    withUnsafePointer(to: storage) { UnsafeMutableRawPointer(mutating: $0) }
  }

  @inlinable
  static func bits(_ value: consuming Value) -> UInt64 {
    let representation = Value.encodeAtomicRepresentation(value)
    return switch size {
    case 1: UInt64(unsafeBitCast(representation, to: UInt8.self))
    case 2: UInt64(unsafeBitCast(representation, to: UInt16.self))
    case 4: UInt64(unsafeBitCast(representation, to: UInt32.self))
    default: unsafeBitCast(representation, to: UInt64.self)
    }
  }

  @inlinable
  static func value(_ bits: UInt64) -> Value {
    typealias Representation = Value.AtomicRepresentation
    return switch size {
    case 1:
      Value.decodeAtomicRepresentation(
        unsafeBitCast(UInt8(truncatingIfNeeded: bits), to: Representation.self))
    case 2:
      Value.decodeAtomicRepresentation(
        unsafeBitCast(UInt16(truncatingIfNeeded: bits), to: Representation.self))
    case 4:
      Value.decodeAtomicRepresentation(
        unsafeBitCast(UInt32(truncatingIfNeeded: bits), to: Representation.self))
    default: Value.decodeAtomicRepresentation(unsafeBitCast(bits, to: Representation.self))
    }
  }

  @inlinable
  public borrowing func load(ordering: AtomicLoadOrdering) -> Value {
    Self.value(rx_load(address(), Self.size, order(ordering)))
  }

  @inlinable
  public borrowing func store(_ desired: consuming Value, ordering: AtomicStoreOrdering) {
    rx_store(address(), Self.size, Self.bits(desired), order(ordering))
  }

  @inlinable
  public borrowing func exchange(
    _ desired: consuming Value, ordering: AtomicUpdateOrdering
  ) -> Value {
    Self.value(
      rx_update(
        address(), Self.size, UInt32(RX_EXCHANGE), Self.bits(desired), order(ordering)))
  }

  @inlinable
  public borrowing func compareExchange(
    expected: consuming Value, desired: consuming Value, ordering: AtomicUpdateOrdering
  ) -> (exchanged: Bool, original: Value) {
    let failure: UInt32 =
      switch ordering {
      case .relaxed, .releasing: 0
      default: UInt32(RX_ACQUIRES)
      }
    return compareExchange(Self.bits(expected), Self.bits(desired), order(ordering), failure)
  }

  @inlinable
  public borrowing func compareExchange(
    expected: consuming Value, desired: consuming Value, successOrdering: AtomicUpdateOrdering,
    failureOrdering: AtomicLoadOrdering
  ) -> (exchanged: Bool, original: Value) {
    compareExchange(
      Self.bits(expected), Self.bits(desired), order(successOrdering), order(failureOrdering))
  }

  /// Never fails for no reason, unlike the one that it hides on some processors.
  @inlinable
  public borrowing func weakCompareExchange(
    expected: consuming Value, desired: consuming Value, successOrdering: AtomicUpdateOrdering,
    failureOrdering: AtomicLoadOrdering
  ) -> (exchanged: Bool, original: Value) {
    compareExchange(
      Self.bits(expected), Self.bits(desired), order(successOrdering), order(failureOrdering))
  }

  @inlinable
  public borrowing func weakCompareExchange(
    expected: consuming Value, desired: consuming Value, ordering: AtomicUpdateOrdering
  ) -> (exchanged: Bool, original: Value) {
    compareExchange(expected: expected, desired: desired, ordering: ordering)
  }

  @inlinable
  borrowing func compareExchange(
    _ expected: UInt64, _ desired: UInt64, _ success: UInt32, _ failure: UInt32
  ) -> (exchanged: Bool, original: Value) {
    let old = rx_compare_exchange(address(), Self.size, expected, desired, success, failure)
    return (old == expected, Self.value(old))
  }
}

// Like the type that it hides: operations are what synchronises.
extension Atomic: @unchecked Sendable {}

extension Atomic where Value: FixedWidthInteger {
  @inlinable
  borrowing func update(
    _ what: Int, _ operand: Value, _ ordering: AtomicUpdateOrdering,
    _ new: (Value) -> Value
  ) -> (oldValue: Value, newValue: Value) {
    let old = Self.value(
      rx_update(address(), Self.size, UInt32(what), Self.bits(operand), order(ordering)))
    return (old, new(old))
  }

  @inlinable @discardableResult
  public borrowing func wrappingAdd(
    _ operand: Value, ordering: AtomicUpdateOrdering
  ) -> (oldValue: Value, newValue: Value) {
    update(Int(RX_ADD), operand, ordering) { $0 &+ operand }
  }

  @inlinable @discardableResult
  public borrowing func wrappingSubtract(
    _ operand: Value, ordering: AtomicUpdateOrdering
  ) -> (oldValue: Value, newValue: Value) {
    update(Int(RX_SUBTRACT), operand, ordering) { $0 &- operand }
  }

  /// Traps on overflow, after the operation.
  @inlinable @discardableResult
  public borrowing func add(
    _ operand: Value, ordering: AtomicUpdateOrdering
  ) -> (oldValue: Value, newValue: Value) {
    update(Int(RX_ADD), operand, ordering) { $0 + operand }
  }

  /// Traps on overflow, after the operation.
  @inlinable @discardableResult
  public borrowing func subtract(
    _ operand: Value, ordering: AtomicUpdateOrdering
  ) -> (oldValue: Value, newValue: Value) {
    update(Int(RX_SUBTRACT), operand, ordering) { $0 - operand }
  }

  @inlinable @discardableResult
  public borrowing func bitwiseOr(
    _ operand: Value, ordering: AtomicUpdateOrdering
  ) -> (oldValue: Value, newValue: Value) {
    update(Int(RX_OR), operand, ordering) { $0 | operand }
  }

  @inlinable @discardableResult
  public borrowing func bitwiseAnd(
    _ operand: Value, ordering: AtomicUpdateOrdering
  ) -> (oldValue: Value, newValue: Value) {
    update(Int(RX_AND), operand, ordering) { $0 & operand }
  }

  @inlinable @discardableResult
  public borrowing func bitwiseXor(
    _ operand: Value, ordering: AtomicUpdateOrdering
  ) -> (oldValue: Value, newValue: Value) {
    update(Int(RX_XOR), operand, ordering) { $0 ^ operand }
  }
}
