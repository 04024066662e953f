// SPDX-License-Identifier: Apache-2.0
//
// The operations of an address space, as statistics and the lock map name them.

/// What a request for the space lock is made for.
public enum OperationKind: UInt8, CaseIterable, Sendable, Codable {
  case map
  case unmap
  case protect
  case fault
  case dontNeed
  /// A look at mappings that needs the lock (listings and lookups do not).
  case query
  /// A recorded call that the product does not have, applied by its effect: see `AddressSpace.substitute`.
  case substitute
  /// Teardown of the space.
  case exit

  /// The name in reports.
  public var name: String {
    switch self {
    case .map: "map"
    case .unmap: "unmap"
    case .protect: "protect"
    case .fault: "fault"
    case .dontNeed: "dontneed"
    case .query: "query"
    case .substitute: "substitute"
    case .exit: "exit"
    }
  }
}
