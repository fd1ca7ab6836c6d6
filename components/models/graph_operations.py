"""The operations of a SavedModel's graph, read from its file: nothing is loaded or executed.

They show what a signature may do beyond computing its outputs: change the model's state, or access files and
processes. They also show whether the time of an execution is bounded by the shapes of the inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from kerasline.components.models.signatures import INTERNAL, Signature

# Stateful operations that change nothing: they create handles, read, call functions or check. Random operations are
# not among them, because they advance a generator.
_READING = frozenset(
    """
    Assert Case DenseHashTable GuaranteeConst HashTable HashTableV2 If LookupTableExport LookupTableExportV2
    LookupTableFind LookupTableFindV2 LookupTableSize LookupTableSizeV2 MutableDenseHashTable MutableDenseHashTableV2
    MutableHashTable MutableHashTableOfTensors MutableHashTableOfTensorsV2 MutableHashTableV2 NoOp ParseExampleV2
    PartitionedCall Placeholder PlaceholderWithDefault Print PrintV2 ReadVariableOp RemoteCall ResourceGather
    ResourceGatherNd SparseTensorToCSRSparseMatrix StatefulPartitionedCall TemporaryVariable TensorArray
    TensorArrayCloseV2 TensorArrayCloseV3 TensorArrayConcatV2 TensorArrayConcatV3 TensorArrayGatherV2
    TensorArrayGatherV3 TensorArrayReadV2 TensorArrayReadV3 TensorArrayScatterV2 TensorArrayScatterV3
    TensorArraySizeV2 TensorArraySizeV3 TensorArraySplitV2 TensorArraySplitV3 TensorArrayV2 TensorArrayV3
    TensorArrayWriteV2 TensorArrayWriteV3 VarHandleOp VarIsInitializedOp Variable VariableV2 VariableShape While
    """.split()
)
# Stateful operations of libraries that read a resource, such as a vocabulary.
_READING_LIBRARIES = ("Sentencepiece", "Wordpiece", "FastWordpiece", "FastBert", "Tokenizers")

# Operations that read or write files, start or contact processes, or run Python.
_OUTSIDE = frozenset(
    """
    AudioSummary CloseSummaryWriter CreateSummaryDbWriter CreateSummaryFileWriter DebugIdentity DebugIdentityV2
    DistributedSave EagerPyFunc FixedLengthRecordReader FixedLengthRecordReaderV2 FlushSummaryWriter IdentityReader
    IdentityReaderV2 ImportEvent LMDBReader LoadDataset LookupTableImportFile MatchingFiles MergeV2Checkpoints PyFunc
    PyFuncStateless ReadFile ReaderRead ReaderReadUpTo ReaderReadUpToV2 ReaderReadV2 Restore RestoreSlice RestoreV2
    RpcCall RpcClient RpcServer RpcServerStart Save SaveDataset SaveDatasetV2 SaveSlices SaveV2 ShardedFilename
    SnapshotDataset SnapshotDatasetV2 TFRecordReader TFRecordReaderV2 TextLineReader TextLineReaderV2 WholeFileReader
    WholeFileReaderV2 WriteAudioSummary WriteFile WriteGraphSummary WriteHistogramSummary WriteImageSummary
    WriteRawProtoSummary WriteScalarSummary WriteSummary DumpDataset RegisterDataset RegisterDatasetV2
    DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 CollectiveReduce
    FixedLengthRecordDataset FixedLengthRecordDatasetV2 TFRecordDataset TFRecordDatasetV2 TextLineDataset
    SqlDataset CSVDataset CSVDatasetV2 LMDBDataset MatchingFilesDataset CacheDataset CacheDatasetV2
    FileSystemSetConfiguration
    GenerateVocabRemapping LoadAndRemapMatrix InitializeTableFromTextFile InitializeTableFromTextFileV2
    """.split()
)
# What loading a SavedModel does in any case: read its own checkpoint and vocabularies.
_LOADING = frozenset({"RestoreV2", "InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
# Collections of TensorFlow 1 that name operations to execute after loading.
_INIT_COLLECTIONS = ("legacy_init_op", "saved_model_main_op", "saved_model_init_op")

# Operations whose time is bounded by the shapes of their operands and results, and whose results are no larger than
# their operands allow. Nothing here loops, decodes, splits texts or draws.
_BOUNDED = frozenset(
    """
    Abs Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Assert Atan Atan2 Atanh AvgPool
    BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd BiasAddV1 Bitcast BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs
    Bucketize Cast Ceil CheckNumerics ClipByValue Concat ConcatV2 Const Conv2D Cos Cosh Cumprod Cumsum DenseBincount
    DepthwiseConv2dNative Div DivNoNan Einsum Elu Equal Erf Erfc EnsureShape Exp ExpandDims Expm1 Floor FloorDiv
    FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Gelu Greater GreaterEqual
    HashTableV2 Identity IdentityN If InTopKV2 Inv InvertPermutation IsFinite IsInf IsNan L2Loss LRN LeakyRelu Less
    LessEqual Lgamma Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LookupTableFindV2 MatMul Max MaxPool
    MaxPoolV2 Maximum Mean Min Minimum Mod Mul MulNoNan Multinomial Neg NoOp NotEqual Pack PartitionedCall
    Placeholder Pow PreventGradient Prod Rank ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResourceGather
    ResourceGatherNd Reverse ReverseV2 Rint Round Rsqrt Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh Size
    Softmax Softplus Softsign Split SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall
    StatelessIf StopGradient StridedSlice StringToHashBucketFast Sub Sum Tan Tanh TopKV2 Transpose TruncateDiv
    TruncateMod Unpack VarHandleOp Where Xdivy Xlogy ZerosLike OnesLike _Arg _Retval
    """.split()
)
# Operations with a result as large as the value of an operand says: its index. They are bounded if that operand is
# computed from constants and shapes alone.
_SIZED = {
    "BroadcastTo": (1,),
    "Fill": (0,),
    "MirrorPad": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "PadV2": (1,),
    "Range": (0, 1, 2),
    "LinSpace": (2,),
    "Slice": (2,),
    "Tile": (1,),
}
# tensorflow.DataType of float16 and bfloat16.
_HALF_TYPES = (14, 19)
_SHAPES = frozenset({"Rank", "Shape", "ShapeN", "Size"})


class GraphOperations:
    """The operations of a graph.

    Args:
        meta_graph: the MetaGraphDef, as `signatures.read_meta_graph` returns it.
    """

    def __init__(self, meta_graph: Any):
        self._meta_graph = meta_graph
        graph = meta_graph.graph_def
        self._nodes = {node.name: node for node in graph.node}
        self._functions = {function.signature.name: function for function in graph.library.function}
        self._executed_nodes: dict[str, list[tuple[Any, dict[str, Any]]]] = {}

    def state_changes(self, signature: Signature) -> list[str]:
        """Return the operations by which a signature may change the model's state, in alphabetical order."""
        return sorted({node.op for node, _ in self._executed(signature) if _changes_state(node.op)})

    def has_bounded_time(self, signature: Signature) -> bool:
        """Return whether the shapes of the inputs bound the time of an execution."""
        return all(_is_bounded(node, body) for node, body in self._executed(signature))

    @functools.cached_property
    def half_precision(self) -> bool:
        """Whether an operation computes in float16 or bfloat16."""
        nodes = [*self._nodes.values(), *(n for f in self._functions.values() for n in f.node_def)]
        return any(value.type in _HALF_TYPES for node in nodes for value in node.attr.values())

    def outside_access(self) -> list[str]:
        """Return the operations that access files or processes, in alphabetical order.

        All signatures count, and what loading executes. Reading its own checkpoint and vocabularies then does not, nor
        does writing a checkpoint, which no server executes.
        """
        definitions = self._meta_graph.signature_def
        called = [one for name, one in definitions.items() if name not in INTERNAL]
        answering = [info.name for one in called for info in one.outputs.values()]
        loading = [info.name for name in INTERNAL if name in definitions for info in definitions[name].outputs.values()]
        for name in _INIT_COLLECTIONS:
            loading += self._meta_graph.collection_def[name].node_list.value
        loading.append(self._meta_graph.saver_def.restore_op_name)
        found = {node.op for node, _ in self._reached(answering)} & _OUTSIDE
        return sorted(found | ({node.op for node, _ in self._reached(loading)} & _OUTSIDE) - _LOADING)

    def _executed(self, signature: Signature) -> list[tuple[Any, dict[str, Any]]]:
        """Return the nodes that a signature may execute. The graph is walked once for each signature."""
        if signature.name not in self._executed_nodes:
            self._executed_nodes[signature.name] = list(self._reached(s.tensor for s in signature.outputs.values()))
        return self._executed_nodes[signature.name]

    def _reached(self, tensors: Iterable[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield the nodes that computing tensors may execute, each with the nodes of its graph or function by name."""
        pending = [_node_name(name) for name in tensors]
        seen: set[str] = set(pending)
        called: list[str] = []
        while pending:
            node = self._nodes.get(pending.pop())
            if node is None:
                continue
            yield node, self._nodes
            called += _called_functions(node)
            inputs = {_node_name(name) for name in node.input} - seen
            seen |= inputs
            pending += inputs
        yield from self._function_nodes(called)

    def _function_nodes(self, called: list[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
        seen: set[str] = set()
        while called:
            function = self._functions.get(name := called.pop())
            if function is None or name in seen:
                continue
            seen.add(name)
            body = _by_name(function.node_def)
            for node in function.node_def:
                yield node, body
                called += _called_functions(node)


def _by_name(nodes: Iterable[Any]) -> dict[str, Any]:
    return {node.name: node for node in nodes}


def _node_name(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]


def _called_functions(node: Any) -> list[str]:
    names = []
    for value in node.attr.values():
        if value.HasField("func"):
            names.append(value.func.name)
        names += [function.name for function in value.list.func]
    return names


def _changes_state(op: str) -> bool:
    if op in _READING or op.startswith(_READING_LIBRARIES):
        return False
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(op)
    return definition is None or definition.is_stateful or any(arg.is_ref for arg in definition.input_arg)


def _is_bounded(node: Any, body: dict[str, Any]) -> bool:
    if node.op in _SIZED:
        operands = [name for name in node.input if not name.startswith("^")]
        sizes = [operands[index] for index in _SIZED[node.op] if index < len(operands)]
        return all(_is_from_shapes(name, body) for name in sizes)
    return node.op in _BOUNDED


def _is_from_shapes(tensor: str, body: dict[str, Any]) -> bool:
    """Return whether a tensor depends on constants and shapes alone. Arguments of functions are not followed."""
    pending, seen = [_node_name(tensor)], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        node = body.get(name)
        if node is None or node.op in ("Placeholder", "_Arg") or _called_functions(node):
            return False
        if node.op not in _SHAPES:
            pending += [_node_name(one) for one in node.input if not one.startswith("^")]
    return True
