// SPDX-License-Identifier: Apache-2.0
//
// The system calls that a recording holds.
//
// Guarantee: raw values are part of the file format (docs/recording-format.md) and never change.

/// A system call that changes, queries or shares an address space.
public enum CallKind: UInt8, BitwiseCopyable, CaseIterable, Sendable {
  case mmap = 1
  case munmap = 2
  case mprotect = 3
  case mremap = 4
  case madvise = 5
  case brk = 6
  case mlock = 7
  case mlock2 = 8
  case munlock = 9
  case mlockall = 10
  case munlockall = 11
  case msync = 12
  case mincore = 13
  case mseal = 14
  case pkeyMprotect = 15
  case remapFilePages = 16
  case processMadvise = 17
  case userfaultfd = 18
  case clone = 19
  case clone3 = 20
  case execve = 21
  case fork = 22
  case vfork = 23

  /// The name of the system call, as perf and the manual pages spell it.
  public var name: String {
    switch self {
    case .pkeyMprotect: "pkey_mprotect"
    case .remapFilePages: "remap_file_pages"
    case .processMadvise: "process_madvise"
    default: String(describing: self)
    }
  }

  /// How the file encodes an argument.
  enum ArgumentCoding {
    /// An address: as the difference to the address before it.
    case address
    /// A length, a set of flags: as it is.
    case value
    /// A small number that may be negative, such as a descriptor.
    case signed
  }

  /// The arguments in the order of the system call.
  var arguments: [ArgumentCoding] {
    switch self {
    case .mmap: Self.mmapArguments
    case .munmap, .mlock, .munlock: Self.rangeArguments
    case .mprotect, .madvise, .mlock2, .msync, .mseal: Self.rangeAndValue
    case .mincore: Self.mincoreArguments
    case .pkeyMprotect: Self.pkeyArguments
    case .mremap: Self.mremapArguments
    case .brk: Self.oneAddress
    case .mlockall, .userfaultfd: Self.oneValue
    case .munlockall, .fork, .vfork: []
    case .remapFilePages: Self.remapArguments
    case .processMadvise: Self.processMadviseArguments
    case .clone: Self.cloneArguments
    case .clone3: Self.rangeArguments
    case .execve: Self.execveArguments
    }
  }

  private static let mmapArguments: [ArgumentCoding] = [
    .address, .value, .value, .value, .signed, .value,
  ]
  private static let rangeArguments: [ArgumentCoding] = [.address, .value]
  private static let rangeAndValue: [ArgumentCoding] = [.address, .value, .value]
  private static let mincoreArguments: [ArgumentCoding] = [.address, .value, .address]
  private static let pkeyArguments: [ArgumentCoding] = [.address, .value, .value, .signed]
  private static let mremapArguments: [ArgumentCoding] = [
    .address, .value, .value, .value, .address,
  ]
  private static let oneAddress: [ArgumentCoding] = [.address]
  private static let oneValue: [ArgumentCoding] = [.value]
  private static let remapArguments: [ArgumentCoding] = [.address, .value, .value, .value, .value]
  private static let processMadviseArguments: [ArgumentCoding] = [
    .signed, .address, .value, .value, .value,
  ]
  private static let cloneArguments: [ArgumentCoding] = [
    .value, .address, .address, .address, .address,
  ]
  private static let execveArguments: [ArgumentCoding] = [.address, .address, .address]

  /// How many arguments the call has, at most 6.
  public var argumentCount: Int { arguments.count }

  /// Whether a successful call returns an address.
  public var returnsAddress: Bool { self == .mmap || self == .mremap || self == .brk }

  /// The kind whose system call has this name.
  init?(name: Substring.UTF8View) {
    guard let kind = Self.byName[String(Substring(name))] else { return nil }
    self = kind
  }

  static let byName: [String: CallKind] = Dictionary(
    uniqueKeysWithValues: allCases.map { ($0.name, $0) })
}
