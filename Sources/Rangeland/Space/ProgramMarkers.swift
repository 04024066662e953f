// SPDX-License-Identifier: Apache-2.0
//
// Where the parts of a program lie: M5 of the acceptance table.
//
// Source: Linux `struct prctl_mm_map`, kernel/sys.c `validate_prctl_map_addr`.

import SystemPackage

/// Where a program's code, data, heap, stack, arguments and environment begin and end, as `/proc/pid/stat` shows
/// them (fields 26 to 28 and 45 to 51) and `prctl(PR_SET_MM_MAP)` sets them. They are notes: nothing is mapped by
/// them but the heap, which `AddressSpace.setBreak` moves between `heapStart` and `programBreak`. 0 = not set.
public struct ProgramMarkers: Sendable, Hashable {
  /// The first address of the code.
  public var startCode: Address = 0
  /// One past the last address of the code.
  public var endCode: Address = 0
  /// The first address of initialised data.
  public var startData: Address = 0
  /// One past the last address of initialised data.
  public var endData: Address = 0
  /// Linux `start_brk`.
  public var heapStart: Address = 0
  /// Linux `brk`.
  public var programBreak: Address = 0
  /// Where the stack pointer was when the program began.
  public var startStack: Address = 0
  /// The first address of the arguments' strings.
  public var argumentStart: Address = 0
  /// One past the last address of the arguments' strings.
  public var argumentEnd: Address = 0
  /// The first address of the environment's strings.
  public var environmentStart: Address = 0
  /// One past the last address of the environment's strings.
  public var environmentEnd: Address = 0

  /// None is set.
  public init() {}

  /// One of them.
  public subscript(marker: ProgramMarker) -> Address {
    get { self[keyPath: marker.path] }
    set { self[keyPath: marker.path] = newValue }
  }

  /// The checks that Linux makes of all together (`validate_prctl_map_addr`).
  ///
  /// - Parameter dataLimit: bytes of the heap and the data together.
  func check(dataLimit: UInt64?) throws(Errno) {
    for marker in ProgramMarker.allCases {
      let address = self[marker]
      guard address >= PlacementLimits.smallestHint, address < Address.spaceEnd else {
        throw .invalidArgument
      }
    }
    guard startCode < endCode, startData <= endData, heapStart <= programBreak,
      argumentStart <= argumentEnd, environmentStart <= environmentEnd
    else { throw .invalidArgument }
    if let dataLimit, (programBreak - heapStart) + (endData - startData) > dataLimit {
      throw .invalidArgument
    }
  }
}

/// A marker by its number in `prctl(PR_SET_MM)`.
public enum ProgramMarker: Int32, CaseIterable, Sendable, Hashable {
  /// `PR_SET_MM_START_CODE`.
  case startCode = 1
  /// `PR_SET_MM_END_CODE`.
  case endCode = 2
  /// `PR_SET_MM_START_DATA`.
  case startData = 3
  /// `PR_SET_MM_END_DATA`.
  case endData = 4
  /// `PR_SET_MM_START_STACK`.
  case startStack = 5
  /// `PR_SET_MM_START_BRK`.
  case heapStart = 6
  /// `PR_SET_MM_BRK`.
  case programBreak = 7
  /// `PR_SET_MM_ARG_START`.
  case argumentStart = 8
  /// `PR_SET_MM_ARG_END`.
  case argumentEnd = 9
  /// `PR_SET_MM_ENV_START`.
  case environmentStart = 10
  /// `PR_SET_MM_ENV_END`.
  case environmentEnd = 11

  fileprivate var path: WritableKeyPath<ProgramMarkers, Address> {
    switch self {
    case .startCode: \.startCode
    case .endCode: \.endCode
    case .startData: \.startData
    case .endData: \.endData
    case .startStack: \.startStack
    case .heapStart: \.heapStart
    case .programBreak: \.programBreak
    case .argumentStart: \.argumentStart
    case .argumentEnd: \.argumentEnd
    case .environmentStart: \.environmentStart
    case .environmentEnd: \.environmentEnd
    }
  }

  /// Whether a mapping has to be there, or above: what may be moved out of the stack (Linux `prctl_set_mm`).
  var needsMapping: Bool {
    switch self {
    case .startStack, .argumentStart, .argumentEnd, .environmentStart, .environmentEnd: true
    default: false
    }
  }
}
