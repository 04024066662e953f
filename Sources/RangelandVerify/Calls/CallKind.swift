// SPDX-License-Identifier: Apache-2.0
//
// The kinds of calls: the one list of them. A new kind is two lines here and a file beside this one.
//
// Both lists are sorted by name, so that calls that are added at the same time meet in few lines.

extension VerifyCall {
  /// A system call, or an access to memory.
  public enum Kind: String, CaseIterable, Sendable {
    case exit
    case fork
    case brk
    case capset
    case truncate = "ftruncate"
    case getPolicy = "get_mempolicy"
    case load
    case madvise
    case mbind
    case mincore
    case mlock
    case mlock2
    case mlockall
    case mmap
    case mapFile = "mmap_file"
    case mappingLimit = "max_map_count"
    case mprotect
    case mremap
    case mseal
    case munlock
    case munlockall
    case msync
    case munmap
    case processRead = "process_vm_readv"
    case processWrite = "process_vm_writev"
    case remapFilePages = "remap_file_pages"
    case setPolicy = "set_mempolicy"
    case setrlimit
    case store

    /// Everything that is to be known about calls of this kind.
    var definition: any CallDefinition {
      switch self {
      case .exit: ExitCall()
      case .fork: ForkCall()
      case .brk: BreakCall()
      case .capset: PrivilegeCall()
      case .truncate: TruncateCall()
      case .getPolicy: PolicyCall()
      case .load: AccessCall(isStore: false)
      case .madvise: AdviseCall()
      case .mbind: BindCall()
      case .mincore: ResidencyCall()
      case .mlock: LockCall(kind: .mlock)
      case .mlock2: LockCall(kind: .mlock2)
      case .mlockall: LockAllCall(unlocks: false)
      case .mmap: MapCall()
      case .mapFile: MapFileCall()
      case .mappingLimit: MappingLimitCall()
      case .mprotect: ProtectCall()
      case .mremap: RemapCall()
      case .mseal: SealCall()
      case .munlock: LockCall(kind: .munlock)
      case .munlockall: LockAllCall(unlocks: true)
      case .msync: SynchronizeCall()
      case .munmap: UnmapCall()
      case .processRead: TransferCall(isWrite: false)
      case .processWrite: TransferCall(isWrite: true)
      case .remapFilePages: RemapPagesCall()
      case .setPolicy: SetPolicyCall()
      case .setrlimit: LimitCall()
      case .store: AccessCall(isStore: true)
      }
    }

    /// Those of a run that names none: where mappings are nearly as many as there may be, a script takes ten times as
    /// long to begin and to end.
    public static let ordinary = allCases.filter { $0 != .mappingLimit }

    /// Spaces that come of each other, end, and copy from each other.
    public static var ofForks: [VerifyCall.Kind] { [.fork, .exit, .processRead, .processWrite] }

    /// A copy between two spaces.
    var isTransfer: Bool { self == .processRead || self == .processWrite }
  }
}
